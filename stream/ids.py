"""Names as 64-bit hashes: what kernels, examples and the model call users, items and categories by."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from stream.partition import partition_of

Array = NDArray[Any]

RESERVED = 2
"""Hashes below this mean "empty" and "deleted" in hash tables."""


ENVELOPE = 16
"""Bytes that a name and its hash take in a message, besides the name's own."""


def hash_id(name: str) -> int:
    """64-bit hash (xxh3) of a name, never one of the reserved values.

    >>> hash_id("a") == hash_id("a") != hash_id("b")
    True
    """
    return max(xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass")), RESERVED)


FRESH = 4
"""How many times the names of a memory wait to be told, at most."""


class Names(dict[str, int]):
    """A bounded memory of names: each has a number, by which the rest is found.

    Parameters
    ----------
    limit
        Names kept, about; beyond it all are forgotten (they cost a hash again).

    Attributes
    ----------
    names : list[str]
        By number. Another list when all are forgotten: numbers given before are still read by the old one.

    Examples
    --------
    >>> names = Names(limit=100)
    >>> numbers = names.look(["shoe", "hat", "shoe"])
    >>> numbers.tolist(), names.hashes(numbers).tolist() == [hash_id(n) for n in ("shoe", "hat", "shoe")]
    ([0, 1, 0], True)
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.names: list[str] = []
        self._hashes = np.zeros(1024, np.uint64)

    def __missing__(self, name: str) -> int:
        number = self[name] = len(self.names)
        self.names.append(name)
        self._hashes = _with_room(self._hashes, number)
        self._hashes[number] = hash_id(name)
        return number

    def look(self, names: Sequence[str]) -> Array:
        """Numbers (int64 [n]) of `names`; they hold until the next call."""
        if len(self.names) >= self.limit:
            self.forget()
        return np.fromiter(map(self.__getitem__, names), np.int64, len(names))

    def hashes(self, numbers: Array) -> Array:
        """Hashes (uint64 [n]) of the names that have these numbers."""
        found: Array = self._hashes[numbers]
        return found

    def forget(self) -> None:
        """Begin anew."""
        self.clear()
        self.names = []


class Users(Names):
    """`Names` that know which of so many `partitions` a user's events belong to (Java's partitioner)."""

    def __init__(self, partitions: int, limit: int) -> None:
        super().__init__(limit)
        self.partitions = partitions
        self._homes = np.zeros(1024, np.int64)

    def __missing__(self, name: str) -> int:
        number = super().__missing__(name)
        self._homes = _with_room(self._homes, number)
        self._homes[number] = partition_of(name.encode("utf-8", "surrogatepass"), self.partitions)
        return number

    def homes(self, numbers: Array) -> Array:
        """Partitions (int64 [n]) that the events of users with these numbers belong to."""
        found: Array = self._homes[numbers]
        return found


class Ids(Names):
    """`Names` that tell which are new.

    Of what is not taken for too long the oldest are forgotten: they are new again when they come again.

    Attributes
    ----------
    fresh : dict[int, str]
        What was given a number and not taken yet: hash -> name.

    Examples
    --------
    >>> ids = Ids(limit=100)
    >>> code = int(ids.hashes(ids.look(["shoe"]))[0])
    >>> ids.take_fresh(1000) == {code: "shoe"}, ids["shoe"], ids.take_fresh(1000)
    (True, 0, {})
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.fresh: OrderedDict[int, str] = OrderedDict()

    def __missing__(self, name: str) -> int:
        number = super().__missing__(name)
        self.fresh[int(self._hashes[number])] = name
        if len(self.fresh) > FRESH * self.limit:
            self.pop(self.fresh.popitem(last=False)[1], None)
        return number

    def take_fresh(self, limit_bytes: int) -> dict[int, str]:
        """New names, up to about `limit_bytes` of them; the others wait."""
        taken: dict[int, str] = {}
        size = 0
        for code, name in self.fresh.items():
            size += ENVELOPE + 4 * len(name)
            if size > limit_bytes:
                break
            taken[code] = name
        for code in taken:
            del self.fresh[code]
        return taken


def _with_room(array: Array, number: int) -> Array:
    """The array, twice as long when it has no place `number`."""
    return array if number < len(array) else np.concatenate([array, np.zeros_like(array)])
