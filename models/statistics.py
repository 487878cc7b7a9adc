"""Counts that fade: impressions, clicks, carts and purchases per row, at two half-lives.

A count c as of time t is worth c x 2^(-(now - t) / half-life) now. A row's counts are as of its own
newest event; a late event is added faded to that time, so the order of events does not matter.
Train counts; rank reads (`write_item_features`, `write_category_features`).
"""

from __future__ import annotations

import math

import numba
import numpy as np

from models.batch import FEATURE, Array, S
from models.delta import Dirty, restore_rows, used_rows

PRIOR = ("ctr_short", "ctr_long", "cart_rate", "purchase_rate")
"""Mean rates over all rows, towards which the rates of one row are smoothed."""

PSEUDO = 20.0
"""Impressions (clicks) at the mean rate that every row starts with."""

IMPRESSIONS_SHORT, CLICKS_SHORT, TOUCHES_SHORT = 0, 1, 2
IMPRESSIONS_LONG, CLICKS_LONG, TOUCHES_LONG, CARTS_LONG, PURCHASES_LONG = 3, 4, 5, 6, 7
CLICK, CART, PURCHASE = 0, 1, 2

MIX = np.uint64(0x9E3779B97F4A7C15)
"""The golden ratio in 64 bits: multiples of it differ in all of them."""

_SHOWN, _TOUCHED, _CTR, _CTR_LONG, _POPULARITY, _CART_RATE, _PURCHASE_RATE, _ITEM_AGE, _CATEGORY_CTR = (
    FEATURE[name]
    for name in (
        "shown",
        "touched",
        "ctr",
        "ctr_long",
        "popularity",
        "cart_rate",
        "purchase_rate",
        "item_age",
        "category_ctr",
    )
)


@numba.njit(cache=True, inline="always")
def decayed(elapsed_ms: float, half_life: float) -> float:
    """Worth now of a count of 1 made `elapsed_ms` ago (0 if in the future); `half_life` in seconds."""
    return math.exp(-0.6931471805599453e-3 * max(elapsed_ms, 0.0) / half_life)


@numba.njit(cache=True, inline="always")
def rate(events: float, trials: float, prior: float) -> float:
    """Share of trials, smoothed: (events + `PSEUDO` x prior) / (trials + `PSEUDO`)."""
    return (events + PSEUDO * prior) / (trials + PSEUDO)


@numba.njit(cache=True)
def write_item_features(
    out: Array,
    row: int,
    stats: Array,
    stats_at: Array,
    born: int,
    now: int,
    prior: Array,
    half_life_short: float,
    half_life_long: float,
) -> None:
    """Write what is counted about one item into its feature row; for use inside kernels.

    Parameters
    ----------
    out : float32 [F]
    row
        Row of the item; -1 (none) writes what an item without events has.
    stats, stats_at : float32 [R, S], int64 [R]
    born
        When the item was published, or first seen (ms); 0 unknown.
    now
        Time of the list (ms).
    prior : float32 [4]
        `PRIOR`.
    half_life_short, half_life_long
        Seconds.
    """
    out[_SHOWN], out[_TOUCHED], out[_POPULARITY] = 0.0, 0.0, 0.0
    out[_CTR], out[_CTR_LONG], out[_CART_RATE], out[_PURCHASE_RATE] = prior[0], prior[1], prior[2], prior[3]
    out[_ITEM_AGE] = -1.0 if born == 0 else math.log1p(max(now - born, 0) / 1000.0)
    if row < 0:
        return
    s = stats[row]
    short = decayed(now - stats_at[row], half_life_short)
    long = decayed(now - stats_at[row], half_life_long)
    out[_SHOWN] = math.log1p(short * s[IMPRESSIONS_SHORT])
    out[_TOUCHED] = math.log1p(short * s[TOUCHES_SHORT])
    out[_CTR] = rate(short * s[CLICKS_SHORT], short * s[IMPRESSIONS_SHORT], prior[0])
    out[_CTR_LONG] = rate(long * s[CLICKS_LONG], long * s[IMPRESSIONS_LONG], prior[1])
    out[_POPULARITY] = math.log1p(long * s[TOUCHES_LONG])
    # every click, with a list or without: touches are clicks, carts and purchases
    clicks = long * max(s[TOUCHES_LONG] - s[CARTS_LONG] - s[PURCHASES_LONG], 0.0)
    out[_CART_RATE] = rate(long * s[CARTS_LONG], clicks, prior[2])
    out[_PURCHASE_RATE] = rate(long * s[PURCHASES_LONG], clicks, prior[3])


@numba.njit(cache=True)
def write_category_features(
    out: Array,
    bucket: int,
    stats: Array,
    stats_at: Array,
    now: int,
    prior: Array,
    half_life_short: float,
) -> None:
    """Write what is counted about the category of one item; arguments as for `write_item_features`."""
    s, short = stats[bucket], decayed(now - stats_at[bucket], half_life_short)
    out[_CATEGORY_CTR] = rate(short * s[CLICKS_SHORT], short * s[IMPRESSIONS_SHORT], prior[0])


@numba.njit(cache=True)
def write_context_features(
    out: Array,
    category: int,
    context: Array,
    stats: Array,
    stats_at: Array,
    now: int,
    half_life_short: float,
) -> None:
    """Multiply the rate of a category by how much it differs in each part of the visitor's context.

        rate(category) x product over the parts c of rate(category in c) / rate(category)

    A rate in a context is smoothed towards that of the category, and parts are taken as independent.

    Parameters
    ----------
    out : float32 [F]
        As `write_category_features` left it.
    category
        Bucket of the item's category; of 0 (none known) nothing is said.
    context : uint64 [X]
        Up to the first 0.
    stats, stats_at : float32 [C, S], int64 [C]
        By `bucket_in`.
    now, half_life_short
        As for `write_item_features`.
    """
    mean = out[_CATEGORY_CTR]
    for x in range(len(context)):
        if context[x] == 0 or category == 0:
            return
        bucket = bucket_in(context[x], category, len(stats))
        s, short = stats[bucket], decayed(now - stats_at[bucket], half_life_short)
        out[_CATEGORY_CTR] *= rate(short * s[CLICKS_SHORT], short * s[IMPRESSIONS_SHORT], mean) / mean


@numba.njit(cache=True)
def bucket_in(context: np.uint64, category: int, buckets: int) -> int:
    """Where a category is counted for those who come in one context."""
    return int((context ^ (np.uint64(category) * MIX)) % np.uint64(buckets))


@numba.njit(cache=True)
def buckets_in(context: Array, category: Array, buckets: int) -> Array:
    """`bucket_in` (int64 [n]) of contexts (uint64 [n]) and categories; -1 where the context is 0."""
    found = np.full(len(context), -1, np.int64)
    for i in range(len(context)):
        if context[i] != 0:
            found[i] = bucket_in(context[i], category[i], buckets)
    return found


@numba.njit(cache=True)
def _worth(counts: Array, at: Array, row: int, ts: int, half_lives: Array) -> tuple[float, float]:
    """Move the row's time on to `ts`; return what an event of `ts` adds (short, long)."""
    late = at[row] - ts
    if late >= 0:
        return decayed(late, half_lives[0]), decayed(late, half_lives[1])
    short, long = decayed(-late, half_lives[0]), decayed(-late, half_lives[1])
    for k in range(3):
        counts[row, k] *= short
    for k in range(3, S):
        counts[row, k] *= long
    at[row] = ts
    return 1.0, 1.0


@numba.njit(cache=True)
def _add_impression(counts: Array, at: Array, row: int, ts: int, half_lives: Array) -> None:
    short, long = _worth(counts, at, row, ts, half_lives)
    counts[row, IMPRESSIONS_SHORT] += short
    counts[row, IMPRESSIONS_LONG] += long


@numba.njit(cache=True)
def _add_act(counts: Array, at: Array, row: int, task: int, listed: int, ts: int, half_lives: Array) -> None:
    short, long = _worth(counts, at, row, ts, half_lives)
    counts[row, TOUCHES_SHORT] += short
    counts[row, TOUCHES_LONG] += long
    if task == CLICK and listed:
        counts[row, CLICKS_SHORT] += short
        counts[row, CLICKS_LONG] += long
    elif task == CART:
        counts[row, CARTS_LONG] += long
    elif task == PURCHASE:
        counts[row, PURCHASES_LONG] += long


@numba.njit(cache=True)
def _meet(first_seen: Array, flags: Array, row: int, ts: int) -> None:
    flags[row] = True
    if first_seen[row] == 0 or ts < first_seen[row]:
        first_seen[row] = ts


@numba.njit(cache=True)
def _count_impressions(
    rows: Array, ts: Array, stats: Array, at: Array, total: Array, total_at: Array, first_seen: Array,
    flags: Array, half_lives: Array,
) -> None:  # fmt: skip
    for i in range(len(rows)):
        if rows[i] >= 0:
            _add_impression(stats, at, rows[i], ts[i], half_lives)
            _add_impression(total, total_at, 0, ts[i], half_lives)
            _meet(first_seen, flags, rows[i], ts[i])


@numba.njit(cache=True)
def _count_acts(
    rows: Array, tasks: Array, listed: Array, ts: Array, stats: Array, at: Array, total: Array,
    total_at: Array, first_seen: Array, flags: Array, half_lives: Array,
) -> None:  # fmt: skip
    for i in range(len(rows)):
        if rows[i] >= 0:
            _add_act(stats, at, rows[i], tasks[i], listed[i], ts[i], half_lives)
            _add_act(total, total_at, 0, tasks[i], listed[i], ts[i], half_lives)
            _meet(first_seen, flags, rows[i], ts[i])


class Statistics:
    """Decayed counts (`models.batch.STATISTICS`) of items, one per row, or of category buckets.

    Parameters
    ----------
    rows
        How many rows (R) there are.
    half_life_short, half_life_long
        Seconds.

    Attributes
    ----------
    stats : float32 [R, S]
        Counts as of `stats_at`.
    stats_at, first_seen : int64 [R]
        Newest and oldest event of the row, ms; 0 without any.
    dirty : Dirty
        Rows that changed.

    Examples
    --------
    >>> statistics = Statistics(4, half_life_short=10, half_life_long=1000)
    >>> statistics.count_impressions(np.array([2, 2, -1]), np.array([1_000, 11_000, 11_000]))
    >>> statistics.stats[2, 0].item(), statistics.stats_at[2].item()
    (1.5, 11000)
    """

    def __init__(self, rows: int, half_life_short: float, half_life_long: float) -> None:
        self.half_lives = np.array([half_life_short, half_life_long])
        self.stats = np.zeros((rows, S), np.float32)
        self.stats_at = np.zeros(rows, np.int64)
        self.first_seen = np.zeros(rows, np.int64)
        self.dirty = Dirty(rows)
        self._total = np.zeros((1, S))
        self._total_at = np.zeros(1, np.int64)

    def count_impressions(self, rows: Array, ts: Array) -> None:
        """Count items shown.

        Parameters
        ----------
        rows : int [n]
            Row of each; -1 is ignored.
        ts : int64 [n]
            Event times, ms, in any order.
        """
        _count_impressions(
            rows, ts, self.stats, self.stats_at, self._total, self._total_at, self.first_seen,
            self.dirty.flags, self.half_lives,
        )  # fmt: skip

    def count_acts(self, rows: Array, tasks: Array, listed: Array, ts: Array) -> None:
        """Count clicks, carts and purchases.

        Parameters
        ----------
        rows, ts : int [n], int64 [n]
            As for `count_impressions`.
        tasks : uint8 [n]
            Index into `models.batch.TASKS`.
        listed : uint8 [n]
            1 where an impression of ours showed the item: only then a click counts as one
            (for the rate); it is a touch in any case.
        """
        _count_acts(
            rows, tasks, listed, ts, self.stats, self.stats_at, self._total, self._total_at,
            self.first_seen, self.dirty.flags, self.half_lives,
        )  # fmt: skip

    def clear(self, rows: Array) -> None:
        """Forget `rows` (int [n]): they have another owner, or none; -1 is ignored."""
        rows = rows[rows >= 0]
        self.stats[rows], self.stats_at[rows], self.first_seen[rows] = 0, 0, 0
        self.dirty.mark(rows)

    def prior(self) -> Array:
        """Mean rates (float32 [4], `PRIOR`); 5 to 10% before anything is counted."""
        t = self._total[0]
        clicks = max(t[TOUCHES_LONG] - t[CARTS_LONG] - t[PURCHASES_LONG], 0.0)
        return np.array(
            [
                (t[CLICKS_SHORT] + 1) / (t[IMPRESSIONS_SHORT] + PSEUDO),
                (t[CLICKS_LONG] + 1) / (t[IMPRESSIONS_LONG] + PSEUDO),
                (t[CARTS_LONG] + 2) / (clicks + PSEUDO),
                (t[PURCHASES_LONG] + 1) / (clicks + PSEUDO),
            ],
            np.float32,
        )

    def trending(self, now: int, n: int, ids: Array) -> Array:
        """The `n` most touched rows (int64) at `now` (ms), short half-life, of those that have an id.

        Equal counts are in the order of `ids` (uint64 [R]), so that every process lists them alike.
        """
        rows = np.flatnonzero(ids)
        with np.errstate(divide="ignore"):
            # in logarithms, where a small count does not fade to nothing
            heat = np.log2(self.stats[rows, TOUCHES_SHORT].astype(np.float64))
        heat -= (now - self.stats_at[rows]) / (1000 * self.half_lives[0])
        if len(rows) > n:
            most = heat >= -np.partition(-heat, n - 1)[n - 1]  # sorting all of them would take far longer
            rows, heat = rows[most], heat[most]
        return rows[np.lexsort((ids[rows], -heat))[:n]]

    def state(self) -> dict[str, Array]:
        """Everything counted, for a checkpoint: views of the rows in use, by name."""
        return {name: used_rows(array) for name, array in self._arrays().items()}

    def load_state(self, state: dict[str, Array]) -> None:
        """Take up what `state` gave."""
        for name, array in self._arrays().items():
            restore_rows(array, state[name])

    def _arrays(self) -> dict[str, Array]:
        return {
            "stats": self.stats,
            "stats_at": self.stats_at,
            "first_seen": self.first_seen,
            "total": self._total,
            "total_at": self._total_at,
        }
