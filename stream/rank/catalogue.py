"""The shop's items as kernels read them: category, brand, price, age, availability."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.table import Table
from stream.errors import Poison
from stream.ids import hash_id
from stream.messages import Item, epoch_ms

Array = NDArray[Any]
BRANDS = 65_535


class Entries(NamedTuple):
    """The arrays; A rows, and the hash table of `models.table.find`."""

    keys: Array  # uint64
    rows: Array  # int32
    category: Array  # uint16 [A]: bucket, 0 none
    brand: Array  # uint16 [A]: bucket, 0 none
    price: Array  # float32 [A]; -1 unknown
    published: Array  # int64 [A]: ms; 0 unknown
    available: Array  # uint8 [A]


class Catalogue:
    """All items that `items` told of.

    Parameters
    ----------
    limit
        Items kept; further ones take the place of retired ones, or are refused.
    categories
        Buckets of categories.

    Examples
    --------
    >>> catalogue = Catalogue(100, 4096)
    >>> catalogue.put(Item(item_id="shoe", category="sport", price=9.0), now_ms=0)
    >>> catalogue.name(hash_id("shoe")), len(catalogue)
    ('shoe', 1)
    """

    def __init__(self, limit: int, categories: int) -> None:
        self.limit, self.categories = limit, categories
        self.names: dict[int, str] = {}
        self.row_of: dict[int, int] = {}
        self.table = Table(1024)
        self.entries = self._arrays(1024)
        self._retired: dict[int, None] = {}
        self._newest: Array | None = None
        self._asked = 0

    def __len__(self) -> int:
        return len(self.row_of)

    def put(self, item: Item, now_ms: int) -> None:
        """Add or replace an entry; raises `Poison` when there is no room or its date is impossible."""
        published = now_ms if item.published_at is None else epoch_ms(item.published_at)
        code = hash_id(item.item_id)
        row = self.row_of.get(code)
        if row is None:
            row = self._admit(code, item.item_id)
        elif item.published_at is None:
            published = int(self.entries.published[row])
        self._retired.pop(code, None)
        e = self.entries
        if published != e.published[row] or item.available != e.available[row]:
            self._newest = None
        e.category[row] = 1 + hash_id(item.category) % (self.categories - 1) if item.category else 0
        e.brand[row] = 1 + hash_id(item.brand) % BRANDS if item.brand else 0
        e.price[row] = -1.0 if item.price is None else item.price
        e.published[row] = published
        e.available[row] = item.available

    def retire(self, item_id: str) -> None:
        """Take an item out of recommendations, as its tombstone asks."""
        code = hash_id(item_id)
        row = self.row_of.get(code)
        if row is not None:
            self._retired[code] = None
            self.entries.available[row] = 0
            self._newest = None

    def name(self, code: int) -> str | None:
        """The item_id of a hash, None when it is not in the catalogue."""
        return self.names.get(code)

    def known(self) -> Entries:
        """Arrays for the kernels, as they are now."""
        return self.entries._replace(keys=self.table.keys, rows=self.table.rows)

    def newest(self, n: int) -> Array:
        """Ids (uint64) of the `n` available items published last, newest first."""
        if self._newest is None or self._asked < n:
            rows = np.flatnonzero(self.entries.available[: len(self.row_of)])
            if len(rows) > n:  # sort only what is not certain to fall off
                published = self.entries.published[rows]
                rows = rows[published >= np.partition(published, len(rows) - n)[len(rows) - n]]
            order = np.lexsort((rows, -self.entries.published[rows]))[:n]
            self._newest, self._asked = self.table.ids[rows[order]], n
        return self._newest[:n]

    def _admit(self, code: int, name: str) -> int:
        """A row for a new item: a free one, or that of the item that has been retired the longest."""
        if len(self.row_of) < self.limit:
            row = len(self.row_of)
            self._ensure(row)
        elif self._retired:
            oldest = next(iter(self._retired))
            del self._retired[oldest], self.names[oldest]
            row = self.row_of.pop(oldest)
        else:
            raise Poison(f"the catalogue is full ({self.limit} items): raise features.items")
        self.row_of[code], self.names[code] = row, name
        self.table.put(np.array([code], np.uint64), np.array([row]))
        return row

    def _ensure(self, row: int) -> None:
        if row < len(self.entries.price):
            return
        old, ids = self.entries, self.table.ids
        self.entries = self._arrays(2 * len(old.price))
        for name in Entries._fields[2:]:
            getattr(self.entries, name)[: len(old.price)] = getattr(old, name)
        self.table = Table(len(self.entries.price))
        self.table.put(ids, np.arange(len(ids)))

    def _arrays(self, rows: int) -> Entries:
        return Entries(
            keys=np.zeros(0, np.uint64),
            rows=np.zeros(0, np.int32),
            category=np.zeros(rows, np.uint16),
            brand=np.zeros(rows, np.uint16),
            price=np.full(rows, -1, np.float32),
            published=np.zeros(rows, np.int64),
            available=np.zeros(rows, np.uint8),
        )
