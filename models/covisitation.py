"""Which items the same visitors touch soon after each other: decayed pair counts, bounded per item.

An act on item i by a visitor who touched j before, ``age`` seconds ago and n other items since, adds to the
pair, both ways,

    w_ij += 2^(-age / pair half-life) / (1 + n)

and fades from then on with a half-life of its own. (An item that is clicked, then put into the cart,
then bought adds three times: acts need no weights of their own.) Each item keeps its heaviest pairs
only. What is published for j is its top K, divided by the popularity p (faded acts) of both ends:

    near_weight_ji = w_ji / (p_j p_i)^alpha

and, for a ranker to weigh, of the same pairs two amounts as they are: ``near_next``, the part of w where
the other item came after this one, and ``near_often``, how often the two met, whatever the time between.

Rank adds this up over the k-th newest items j of a visitor's history, ``age`` seconds old:

    score(i) = sum_k 0.7^k x 2^(-age_k / history half-life) x near_weight_ji(now)

What is published is coarse, since most of a model's update is neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from models.amounts import AMOUNTS
from models.batch import Array
from models.delta import Dirty, restore_rows, used_rows
from models.pairs import count_pairs, publish_pairs, repeated
from models.statistics import decayed
from models.table import EMPTY, Table, find

BACK = 0.7
"""Each further item back in a history counts this much of the one before."""

COUNTERS = 2
"""Pairs counted per item, in multiples of those published."""

HEAVIEST = 65_504.0
"""Largest number of 16 bits."""

SUM, MOST, LAST, ITEMS, NEXT_SUM, OFTEN_SUM = range(6)
SUMS = 6
"""What is added up for a candidate, see `near_features`."""


class Covisitation:
    """Pairs of items, counted over all visitors.

    Parameters
    ----------
    table
        Which item has which row; pairs of items without a row of their own are not counted.
    neighbours
        Neighbours published per item (K).
    pair_half_life
        Seconds between two acts of one visitor that halve the weight of the pair.
    half_life
        Seconds in which a counted pair fades to half.
    alpha
        How much popularity is divided out: 0 none, 0.5 cosine.

    Attributes
    ----------
    near : uint64 [R, K]
        Published neighbours, heaviest first; 0 where there is none.
    near_weight : float16 [R, K]
        Their weights as of `near_at`.
    near_next, near_often : uint8 [R, K]
        As of then too; see `models.amounts`.
    near_at : int64 [R]
        Newest event of the row when it was published, ms.
    dirty : Dirty
        Rows published since they were taken.

    Examples
    --------
    >>> table = Table(8)
    >>> table.put(np.array([70, 80], np.uint64), np.array([1, 2]))
    >>> pairs = Covisitation(table, 4, pair_half_life=60, half_life=86_400)
    >>> history, age = np.array([[70, 0]], np.uint64), np.array([[60, -1]], np.float32)
    >>> pairs.count(np.array([80], np.uint64), np.array([1000]), history, age)
    >>> pairs.refresh()
    >>> pairs.near[1].tolist(), pairs.near_weight[1, 0].item()
    ([80, 0, 0, 0], 0.5)
    """

    def __init__(
        self,
        table: Table,
        neighbours: int,
        *,
        pair_half_life: float = 3600.0,
        half_life: float = 2_592_000.0,
        alpha: float = 0.1,
    ) -> None:
        rows, counters = table.capacity, COUNTERS * neighbours
        self.pair_half_life, self.half_life, self.alpha = pair_half_life, half_life, alpha
        self._table = table
        self._pairs = np.zeros((rows, counters), np.uint64)
        self._weights = np.zeros((rows, counters, 3), np.float32)
        self._mass = np.zeros(rows)
        self._base = np.zeros(rows, np.int64)
        self._last = np.zeros(rows, np.int64)
        self._stale = Dirty(rows)
        self.near = np.zeros((rows, neighbours), np.uint64)
        self.near_weight = np.zeros((rows, neighbours), np.float16)
        self.near_next = np.zeros((rows, neighbours), np.uint8)
        self.near_often = np.zeros((rows, neighbours), np.uint8)
        self.near_at = np.zeros(rows, np.int64)
        self.dirty = Dirty(rows)

    def count(self, items: Array, ts: Array, history: Array, age: Array) -> None:
        """Count acts against their visitors' histories.

        Parameters
        ----------
        items : uint64 [n]
        ts : int64 [n]
            Event times, ms.
        history : uint64 [n, H]
            What the visitor touched before, newest first, 0 where empty. An item that is in it
            twice counts once, by its newest act.
        age : float32 [n, H]
            Seconds before the act.
        """
        count_pairs(
            items, ts, history, age, self._table.keys, self._table.rows, self._pairs,
            self._weights, self._mass, self._base, self._last, self._stale.flags,
            self.pair_half_life, self.half_life,
        )  # fmt: skip

    def refresh(self, limit: int | None = None) -> None:
        """Publish what was counted, for up to `limit` rows (None: all), the longest waiting first."""
        rows = self._stale.take(self._table.capacity if limit is None else limit)
        weight = publish_pairs(
            rows, self._table.keys, self._table.rows, self._pairs, self._weights, self._mass, self._base,
            self._last, self.near, self.near_next, self.near_often, self.near_at, self.half_life, self.alpha,
        )  # fmt: skip
        self.near_weight[rows] = np.minimum(weight, HEAVIEST)
        self.dirty.mark(rows)

    def clear(self, rows: Array) -> None:
        """Forget `rows` (int [n]): they have another owner, or none; -1 is ignored."""
        rows = rows[rows >= 0]
        for array in self._arrays().values():
            array[rows] = 0
        self._stale.flags[rows] = False
        self.dirty.mark(rows)

    def state(self) -> dict[str, Array]:
        """Everything counted and published, for a checkpoint: views of the rows in use, by name."""
        return {name: used_rows(array) for name, array in self._arrays().items()}

    def load_state(self, state: dict[str, Array]) -> None:
        """Take up what `state` gave; every row is then to be published again."""
        for name, array in self._arrays().items():
            restore_rows(array, state[name])
        self._stale.flags[:] = self._last > 0

    def published(self) -> dict[str, Array]:
        """The arrays that change with `dirty`, by name."""
        return {
            "near": self.near,
            "near_weight": self.near_weight,
            "near_next": self.near_next,
            "near_often": self.near_often,
            "near_at": self.near_at,
        }

    def _arrays(self) -> dict[str, Array]:
        counted: dict[str, Array] = {
            "pairs": self._pairs,
            "weights": self._weights,
            "mass": self._mass,
            "base": self._base,
            "last": self._last,
        }
        return counted | self.published()


class Scratch(NamedTuple):
    """Working memory of the kernels below: a small hash table of candidates, emptied at each use.

    Attributes
    ----------
    ids : uint64 [slots], 0 where free
    sums : float32 [slots, 6]
        What the history's items give the candidate, see `near_features`.
    used : int32 [slots]
        Slots taken, in order.
    size : int64 [1]
        How many of `used` count.
    """

    ids: Array
    sums: Array
    used: Array
    size: Array


def scratch(history: int, neighbours: int) -> Scratch:
    """Working memory for histories of `history` items with `neighbours` each; one per thread."""
    slots = 1 << (2 * history * neighbours - 1).bit_length()
    return Scratch(
        np.zeros(slots, np.uint64),
        np.zeros((slots, SUMS), np.float32),
        np.zeros(slots, np.int32),
        np.zeros(1, np.int64),
    )


@numba.njit(cache=True)
def gather_near(
    scratch: Scratch, history: Array, age: Array, now: int, keys: Array, rows: Array, near: Array,
    near_weight: Array, near_next: Array, near_often: Array, near_at: Array, history_half_life: float,
    half_life: float,
) -> None:  # fmt: skip
    """Add up the neighbours of one visitor's history, as `top_near` and `near_features` read them.

    Parameters
    ----------
    scratch
        Filled; what it held is forgotten.
    history, age : uint64 [H], float32 [H]
        Newest first, 0 where empty; seconds before `now`. An item counts once, by its newest act.
    now
        ms
    keys, rows
        Of the item table (`models.table.Table`).
    near, near_weight, near_next, near_often, near_at
        As `Covisitation` publishes them, the weights as float32.
    history_half_life, half_life
        Seconds: of the history's items, and of the pairs.

    Raises
    ------
    ValueError
        When the scratch was made for a shorter history or fewer neighbours.
    """
    if len(history) * near.shape[1] >= len(scratch.ids):
        raise ValueError("scratch is too small for this history")
    for k in range(scratch.size[0]):
        scratch.ids[scratch.used[k]] = EMPTY
    scratch.size[0] = 0
    back = 1.0
    for h in range(len(history)):
        if history[h] == EMPTY or repeated(history, h):
            continue
        row = find(keys, rows, history[h])
        if row >= 0:
            left = decayed(now - near_at[row], half_life)
            worth = back * decayed(1000.0 * age[h], history_half_life) * left
            for k in range(near.shape[1]):
                if near[row, k] == EMPTY:
                    break
                sums = scratch.sums[_take_slot(scratch, near[row, k])]
                weight = worth * near_weight[row, k]
                sums[SUM] += weight
                sums[MOST] = max(sums[MOST], weight)
                if back == 1.0:
                    sums[LAST] = left * near_weight[row, k]
                sums[ITEMS] += 1.0
                sums[NEXT_SUM] += worth * AMOUNTS[near_next[row, k]]
                sums[OFTEN_SUM] += left * AMOUNTS[near_often[row, k]]
        back *= BACK


@numba.njit(cache=True)
def _slot(ids: Array, id_: np.uint64) -> int:
    mask = len(ids) - 1
    slot = np.int64(id_ & np.uint64(mask))
    while ids[slot] != EMPTY and ids[slot] != id_:
        slot = (slot + 1) & mask
    return int(slot)


@numba.njit(cache=True)
def _take_slot(scratch: Scratch, id_: np.uint64) -> int:
    """The slot of a candidate, with sums of 0 where it is new."""
    slot = _slot(scratch.ids, id_)
    if scratch.ids[slot] == EMPTY:
        scratch.ids[slot] = id_
        scratch.sums[slot] = 0.0
        scratch.used[scratch.size[0]] = slot
        scratch.size[0] += 1
    return slot


@numba.njit(cache=True)
def near_features(scratch: Scratch, id_: np.uint64, out: Array) -> None:
    """Write what the history gathered gives one item; 0 where it is nobody's neighbour.

    Parameters
    ----------
    out : float32 [6]
        Of ``near_weight``: the sum by recency, its largest part, and what the newest item gives, whatever
        its age; how many items give anything; the sum of ``near_next`` by recency; the sum of
        ``near_often``, whatever the age of the items.
    """
    slot = _slot(scratch.ids, id_)
    for k in range(SUMS):
        out[k] = scratch.sums[slot, k] if scratch.ids[slot] != EMPTY else 0.0


@numba.njit(cache=True)
def top_near(scratch: Scratch, out: Array, weight: Array) -> int:
    """Write the ids gathered with the highest sums, highest first; return how many.

    Parameters
    ----------
    out, weight : uint64 [limit], float32 [limit]
        Filled from the start.
    """
    count = 0
    for k in range(scratch.size[0]):  # by insertion: NumPy's sorting functions take seconds to compile
        slot = scratch.used[k]
        total = scratch.sums[slot, SUM]
        at = min(count, len(out) - 1)
        if total <= 0 or (count == len(out) and total <= weight[at]):
            continue
        while at > 0 and weight[at - 1] < total:
            out[at], weight[at] = out[at - 1], weight[at - 1]
            at -= 1
        out[at], weight[at] = scratch.ids[slot], total
        count = min(count + 1, len(out))
    return count
