"""Which row of the item table belongs to which item: an open-addressing hash table in flat arrays.

Both sides of the wire use it: train admits items and evicts them, rank follows by deltas.
"""

from __future__ import annotations

import numba
import numpy as np

from models.batch import Array

EMPTY, DELETED = np.uint64(0), np.uint64(1)
"""Reserved keys; no item hashes to them (`stream` makes sure)."""


@numba.njit(cache=True, inline="always")
def find(keys: Array, rows: Array, id_: np.uint64) -> int:
    """Row of one id, or -1. For use inside kernels."""
    mask = len(keys) - 1
    slot = np.int64(id_ & np.uint64(mask))
    while True:
        key = keys[slot]
        if key == id_:
            return int(rows[slot])
        if key == EMPTY:
            return -1
        slot = (slot + 1) & mask


@numba.njit(cache=True)
def _lookup(keys: Array, rows: Array, ids: Array, out: Array) -> None:
    for i in range(len(ids)):
        out[i] = find(keys, rows, ids[i])


def lookup(keys: Array, rows: Array, ids: Array) -> Array:
    """Rows (int32 [n]) of `ids` (uint64 [n]) in a table's arrays, -1 where absent."""
    out = np.empty(len(ids), np.int32)
    _lookup(keys, rows, np.array(ids, np.uint64), out)  # a copy: the kernel is compiled for writable arrays
    return out


@numba.njit(cache=True)
def _insert(keys: Array, rows: Array, id_: np.uint64, row: int) -> None:
    mask = len(keys) - 1
    slot = np.int64(id_ & np.uint64(mask))
    while keys[slot] != EMPTY and keys[slot] != DELETED:
        slot = (slot + 1) & mask
    keys[slot], rows[slot] = id_, row


@numba.njit(cache=True)
def _insert_all(keys: Array, rows: Array, ids: Array, targets: Array) -> None:
    for i in range(len(ids)):
        _insert(keys, rows, ids[i], targets[i])


@numba.njit(cache=True)
def _remove_all(keys: Array, rows: Array, ids: Array) -> None:
    mask = len(keys) - 1
    for i in range(len(ids)):
        slot = np.int64(ids[i] & np.uint64(mask))
        while keys[slot] != ids[i] and keys[slot] != EMPTY:
            slot = (slot + 1) & mask
        if keys[slot] == ids[i]:
            keys[slot], rows[slot] = DELETED, -1


class Table:
    """A map from 64-bit ids to rows below `capacity`, each id at most once.

    Parameters
    ----------
    capacity
        Rows there are; the table never holds more ids.

    Attributes
    ----------
    ids : uint64 [capacity]
        The id of each row, 0 where free.
    keys, rows : uint64, int32 [slots]
        The hash table itself, for `find` inside kernels; replaced when it is rebuilt.

    Examples
    --------
    >>> table = Table(4)
    >>> table.put(np.array([77], np.uint64), np.array([2]))
    >>> table.lookup(np.array([77, 78], np.uint64)).tolist()
    [2, -1]
    >>> table.put(np.array([78], np.uint64), np.array([2]))  # takes the row over
    >>> table.lookup(np.array([77, 78], np.uint64)).tolist()
    [-1, 2]
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.ids = np.zeros(capacity, np.uint64)
        self._rebuild()

    def __len__(self) -> int:
        return int(np.count_nonzero(self.ids))

    def lookup(self, ids: Array) -> Array:
        """Rows (int32) of `ids` (uint64), -1 where absent; shape is kept."""
        return lookup(self.keys, self.rows, ids.reshape(-1)).reshape(ids.shape)

    def put(self, ids: Array, rows: Array) -> None:
        """Give each row to its id; an id that had the row loses it. Id 0 frees the row."""
        before = self.ids[rows]
        gone = before[(before != EMPTY) & (before != ids)]
        _remove_all(self.keys, self.rows, gone)
        fresh = (ids != EMPTY) & (before != ids)
        self.ids[rows] = ids
        self._used += int(fresh.sum())
        if self._used > len(self.keys) // 2:  # tombstones make probes long: start over
            self._rebuild()
        else:
            _insert_all(self.keys, self.rows, ids[fresh], rows[fresh].astype(np.int32))

    def _rebuild(self) -> None:
        slots = 1 << max(4, (4 * self.capacity - 1).bit_length())
        self.keys = np.zeros(slots, np.uint64)
        self.rows = np.full(slots, -1, np.int32)
        used = np.flatnonzero(self.ids)
        _insert_all(self.keys, self.rows, self.ids[used], used.astype(np.int32))
        self._used = len(used)
