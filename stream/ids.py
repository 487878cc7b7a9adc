"""Names as 64-bit hashes: what kernels, examples and the model call users, items and categories by."""

from __future__ import annotations

import xxhash

from stream.partition import partition_of

RESERVED = 2
"""Hashes below this mean "empty" and "deleted" in hash tables."""


def hash_id(name: str) -> int:
    """64-bit hash (xxh3) of a name, never one of the reserved values.

    >>> hash_id("a") == hash_id("a") != hash_id("b")
    True
    """
    return max(xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass")), RESERVED)


class Ids(dict[str, int]):
    """A bounded memory of hashes: `ids[name]` computes what it has not seen.

    Parameters
    ----------
    limit
        Names kept; when more have been seen, `trim` forgets all of them (they cost a hash again).

    Attributes
    ----------
    fresh : dict[int, str]
        What was computed since the last `take_fresh`: hash -> name.

    Examples
    --------
    >>> ids = Ids(limit=100)
    >>> code = ids["shoe"]
    >>> ids.take_fresh() == {code: "shoe"}, ids["shoe"] == code, ids.take_fresh()
    (True, True, {})
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.fresh: dict[int, str] = {}

    def __missing__(self, name: str) -> int:
        code = self[name] = hash_id(name)
        self.fresh[code] = name
        return code

    def take_fresh(self) -> dict[int, str]:
        """Names met since the last call; forgets everything when over the limit."""
        fresh, self.fresh = self.fresh, {}
        if len(self) > self.limit:
            self.clear()
        return fresh


class Routes(dict[str, int]):
    """A bounded memory of the partition that a user's events belong to (Java's default partitioner)."""

    def __init__(self, partitions: int, limit: int) -> None:
        super().__init__()
        self.partitions, self.limit = partitions, limit

    def __missing__(self, user_id: str) -> int:
        if len(self) > self.limit:
            self.clear()
        partition = self[user_id] = partition_of(user_id.encode("utf-8", "surrogatepass"), self.partitions)
        return partition
