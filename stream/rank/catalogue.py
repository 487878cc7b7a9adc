"""The shop's items as kernels read them: category, brand, price, age, availability."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.table import Table
from stream.errors import Poison
from stream.ids import hash_id
from stream.messages import Item, epoch_ms

Array = NDArray[Any]
BRANDS = 65_535


ITEM = np.dtype(
    [
        ("published", np.int64),  # ms; 0 unknown
        ("price", np.float32),  # -1 unknown
        ("category", np.uint16),  # bucket, 0 none
        ("brand", np.uint16),  # bucket, 0 none
        ("available", np.uint8),
    ],
    align=True,
)


class Entries(NamedTuple):
    """The catalogue in arrays: A items, and the hash table of `models.table.find`."""

    keys: Array  # uint64
    rows: Array  # int32
    item: Array  # ITEM [A]


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
        self.items = np.zeros(1024, ITEM)
        self._retired: OrderedDict[int, None] = OrderedDict()
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
            published = int(self.items["published"][row])
        self._retired.pop(code, None)
        entry = self.items[row]
        if published != entry["published"] or item.available != entry["available"]:
            self._newest = None
        entry["category"] = 1 + hash_id(item.category) % (self.categories - 1) if item.category else 0
        entry["brand"] = 1 + hash_id(item.brand) % BRANDS if item.brand else 0
        entry["price"] = -1.0 if item.price is None else item.price
        entry["published"] = published
        entry["available"] = item.available

    def retire(self, item_id: str) -> None:
        """Take an item out of recommendations, as its tombstone asks."""
        code = hash_id(item_id)
        row = self.row_of.get(code)
        if row is not None:
            self._retired[code] = None
            self.items["available"][row] = 0
            self._newest = None

    def name(self, code: int) -> str | None:
        """The item_id of a hash, None when it is not in the catalogue."""
        return self.names.get(code)

    def known(self) -> Entries:
        """Arrays for the kernels, as they are now."""
        return Entries(self.table.keys, self.table.rows, self.items)

    def newest(self, n: int) -> Array:
        """Ids (uint64) of the `n` available items published last, newest first."""
        if self._newest is None or self._asked < n:
            published = self.items["published"]
            rows = np.flatnonzero(self.items["available"][: len(self.row_of)])
            if len(rows) > n:  # sort only what is not certain to fall off
                border = np.partition(published[rows], len(rows) - n)[len(rows) - n]
                rows = rows[published[rows] >= border]
            order = np.lexsort((rows, -published[rows]))[:n]
            self._newest, self._asked = self.table.ids[rows[order]], n
        return self._newest[:n]

    def _admit(self, code: int, name: str) -> int:
        """A row for a new item: a free one, or that of the item that has been retired the longest."""
        if len(self.row_of) < self.limit:
            row = len(self.row_of)
            self._ensure(row)
        elif self._retired:
            oldest, _ = self._retired.popitem(last=False)
            del self.names[oldest]
            row = self.row_of.pop(oldest)
        else:
            raise Poison(f"the catalogue is full ({self.limit} items): raise features.items")
        self.row_of[code], self.names[code] = row, name
        self.table.put(np.array([code], np.uint64), np.array([row]))
        return row

    def _ensure(self, row: int) -> None:
        if row < len(self.items):
            return
        ids = self.table.ids
        old, self.items = self.items, np.zeros(2 * len(self.items), ITEM)
        self.items[: len(old)] = old
        self.table = Table(len(self.items))
        self.table.put(ids, np.arange(len(ids)))
