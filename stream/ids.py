"""Names as 64-bit hashes: what kernels, examples and the model call users, items and categories by."""

from __future__ import annotations

from collections import OrderedDict

import xxhash

from stream.partition import partition_of

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


class Hashes(dict[str, int]):
    """A bounded memory of hashes: `hashes[name]` computes what it has not seen.

    Parameters
    ----------
    limit
        Names kept; beyond it all are forgotten (they cost a hash again).
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def __missing__(self, name: str) -> int:
        if len(self) >= self.limit:
            self.clear()
        code = self[name] = hash_id(name)
        return code


class Ids(Hashes):
    """`Hashes` that tell which names are new.

    Of what is not taken for too long the oldest are forgotten: they are new again when they come again.

    Attributes
    ----------
    fresh : dict[int, str]
        What was computed and not taken yet: hash -> name.

    Examples
    --------
    >>> ids = Ids(limit=100)
    >>> code = ids["shoe"]
    >>> ids.take_fresh(1000) == {code: "shoe"}, ids["shoe"] == code, ids.take_fresh(1000)
    (True, True, {})
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.fresh: OrderedDict[int, str] = OrderedDict()

    def __missing__(self, name: str) -> int:
        code = super().__missing__(name)
        self.fresh[code] = name
        if len(self.fresh) > FRESH * self.limit:
            self.pop(self.fresh.popitem(last=False)[1], None)
        return code

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


class Routes(dict[str, int]):
    """A bounded memory of the partition that a user's events belong to (Java's default partitioner)."""

    def __init__(self, partitions: int, limit: int) -> None:
        super().__init__()
        self.partitions, self.limit = partitions, limit

    def __missing__(self, user_id: str) -> int:
        if len(self) >= self.limit:
            self.clear()
        partition = self[user_id] = partition_of(user_id.encode("utf-8", "surrogatepass"), self.partitions)
        return partition
