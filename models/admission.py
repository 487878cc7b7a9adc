"""Which items get a row of their own (dynamic rows as in Monolith, arXiv 2209.07663).

An id gets a row when it was seen often enough, counted in a small sketch; when rows run out, those seen
least recently are taken back. Memory is flat however many ids pass.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from models.batch import Array, Shape
from models.table import EMPTY, Table, find

EVICTED_AT_ONCE = 100
"""A hundredth of the rows is freed together: finding the oldest looks at all of them."""


class Admitted(NamedTuple):
    """Rows that changed hands: `rows` belong to `ids` now; `evicted` rows were taken from `former` before.

    A row may be in both.
    """

    rows: Array
    ids: Array
    evicted: Array
    former: Array


@numba.njit(cache=True)
def _sight(
    keys: Array, rows: Array, ids: Array, seen: Array, tick: int, sketch: Array, enough: int, out: Array
) -> tuple[int, int]:
    """Mark rows seen at `tick`; count the other ids and put those seen enough, once each, into `out`.

    Returns how many those are and how many sightings were counted. The sketch is a count-min sketch of
    two rows (Cormode and Muthukrishnan, 2005).
    """
    wanted = counted = 0
    mask = np.uint64(sketch.shape[1] - 1)
    for i in range(len(ids)):
        id_ = ids[i]
        if id_ == EMPTY:
            continue
        row = find(keys, rows, id_)
        if row >= 0:
            seen[row] = tick
            continue
        a = np.int64((id_ * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32) & mask)
        b = np.int64((id_ * np.uint64(0xC2B2AE3D27D4EB4F)) >> np.uint64(32) & mask)
        count = min(sketch[0, a], sketch[1, b]) + 1
        counted += 1
        if count < 255:
            sketch[0, a], sketch[1, b] = max(sketch[0, a], count), max(sketch[1, b], count)
        if count >= enough:
            out[wanted] = id_
            wanted += 1
    return wanted, counted


def resolve(table_rows: Array, ids: Array, cold: int) -> Array:
    """Rows (int64) to score with: an id's own, or the one that it shares with other rare ids.

    Parameters
    ----------
    table_rows : int32 [...]
        From `Table.lookup`, -1 where the id has none.
    ids : uint64 [...]
    cold
        `Shape.cold`.

    Examples
    --------
    >>> resolve(np.array([7, -1]), np.array([100, 101], np.uint64), 4).tolist()
    [7, 1]
    """
    return np.where(table_rows >= 0, table_rows, (ids % np.uint64(cold)).astype(np.int64))


class Admission:
    """Gives rows of a table to ids, and takes them back.

    Parameters
    ----------
    shape
        `rows` of which the first `cold` are shared and never given away.
    table
        Is changed here; shared with whoever looks rows up.
    admit_after
        Sightings that earn a row.
    sketch
        Counters per sketch row, a power of two. Counters halve after as many sightings.

    Examples
    --------
    >>> admission = Admission(Shape(rows=8, cold=4), Table(8))
    >>> admission.admit(np.array([7, 8, 7], np.uint64)).ids.tolist()
    [7]
    """

    def __init__(self, shape: Shape, table: Table, *, admit_after: int = 2, sketch: int = 1 << 20) -> None:
        self.table, self.cold, self.admit_after = table, shape.cold, admit_after
        self.seen = np.zeros(shape.rows, np.int64)
        self.tick = 0
        self.sketch = np.zeros((2, sketch), np.uint8)
        self._counted = 0
        self._free = np.arange(shape.rows - 1, shape.cold - 1, -1)

    @property
    def roomy(self) -> bool:
        """Whether more rows are free than taking some back leaves."""
        return len(self._free) > len(self.seen) // EVICTED_AT_ONCE

    def admit(self, ids: Array) -> Admitted:
        """Count sightings of `ids` (uint64; 0 is nobody) and give rows to those that earned one.

        Ids of this call keep their rows; when there are more of them than rows, the rest stays cold.
        """
        self.tick += 1
        wanted = np.empty(len(ids), np.uint64)
        table = self.table
        count, counted = _sight(
            table.keys, table.rows, ids, self.seen, self.tick, self.sketch, self.admit_after, wanted
        )
        self._age(counted)
        new = np.unique(wanted[:count])
        evicted, former = self._evict(len(new) - len(self._free))
        new = new[: len(self._free)]
        rows = self._free[len(self._free) - len(new) :][::-1].copy()
        self._free = self._free[: len(self._free) - len(new)]
        if len(new):
            table.put(new, rows)
            self.seen[rows] = self.tick
        return Admitted(rows, new, evicted, former)

    def state(self) -> dict[str, Array]:
        """Everything `load_state` needs; the table is not part of it."""
        return {
            "seen": self.seen.copy(),
            "sketch": self.sketch.copy(),
            "counts": np.array([self.tick, self._counted]),
            "free": self._free.copy(),
        }

    def load_state(self, state: dict[str, Array]) -> None:
        """Continue from `state`, with the table as it was then."""
        self.seen[:], self.sketch[:] = state["seen"], state["sketch"]
        self.tick, self._counted = (int(v) for v in state["counts"])
        self._free = state["free"].copy()

    def _age(self, counted: int) -> None:
        self._counted += counted
        if self._counted >= self.sketch.shape[1]:
            self.sketch >>= 1
            self._counted = 0

    def _evict(self, missing: int) -> tuple[Array, Array]:
        """Free at least `missing` rows if so many were not seen just now; return them and their ids."""
        if missing <= 0:
            return np.empty(0, np.int64), np.empty(0, np.uint64)
        old = self.cold + np.flatnonzero(self.seen[self.cold :] < self.tick)
        old = old[self.table.ids[old] != EMPTY]
        count = min(len(old), max(missing, (len(self.seen) - self.cold) // EVICTED_AT_ONCE))
        if count < len(old):
            oldest = np.argpartition(self.seen[old], count - 1)[:count] if count else slice(0)
            old = np.sort(old[oldest])
        former = self.table.ids[old]
        self.table.put(np.zeros(len(old), np.uint64), old)
        self._free = np.concatenate([old[::-1], self._free])
        return old, former
