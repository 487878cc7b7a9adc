"""The feature kernel: what a list looks like to the model, at the impression and when serving alike.

Where a feature is added: name it in `models.batch.FEATURES`, write it in one of the `_write_*`
functions here.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from models.batch import FEATURE, Array
from models.covisitation import Scratch, gather_near, near_features
from models.statistics import write_category_features, write_item_features
from models.table import find
from stream.rank.catalogue import Entries
from stream.rank.visitors import DISMISSED, RING, Memory

NONE_PLACE = -30.0
"""A place difference where there is no place to compare with."""

FORGOTTEN = np.float32(1e12)
"""Seconds after which nothing is left of an act."""

RECENCY = 0.9
"""Each history entry weighs so much of the one after it."""


class Known(NamedTuple):
    """What train has counted, as kernels read it; R item rows, C category buckets, K neighbours."""

    keys: NDArray[Any]  # uint64, hash table of `models.table.find`
    rows: NDArray[Any]  # int32
    stats: NDArray[Any]  # float32 [R, S]
    stats_at: NDArray[Any]  # int64 [R]
    first_seen: NDArray[Any]  # int64 [R]
    category_stats: NDArray[Any]  # float32 [C, S]
    category_stats_at: NDArray[Any]  # int64 [C]
    near: NDArray[Any]  # uint64 [R, K]
    near_weight: NDArray[Any]  # float32 [R, K]
    near_at: NDArray[Any]  # int64 [R]
    prior: NDArray[Any]  # float32 [4]
    total: float  # impressions (long) of all items
    cold: int
    half_life_short: float
    half_life_long: float
    history_half_life: float  # of history entries, where neighbours are added up
    near_half_life: float  # of the neighbours' weights


class Limits(NamedTuple):
    """What the kernels need of the settings; times in ms."""

    session_gap: int
    list_window: int
    exclude_bought: bool


# indices as module constants: numba compiles them in
LIST_SIZE = FEATURE["list_size"]
PRIOR_RANK = FEATURE["prior_rank"]
PRICE = FEATURE["price"]
PRICE_RANK = FEATURE["price_rank"]
PRICE_TO_MEDIAN = FEATURE["price_to_median"]
PRICE_TO_MIN = FEATURE["price_to_min"]
PRICE_TO_OWN = FEATURE["price_to_own"]
SAME_LIST = FEATURE["same_list"]
FROM_TOUCHED = FEATURE["from_touched"]
FROM_CLICKED = FEATURE["from_clicked"]
OWN_EVENTS = FEATURE["own_events"]
OWN_AGE = FEATURE["own_age"]
OWN_RECENCY = FEATURE["own_recency"]
OWN_CLICKS = FEATURE["own_clicks"]
OWN_CARTS = FEATURE["own_carts"]
OWN_PURCHASES = FEATURE["own_purchases"]
OWN_SESSION = FEATURE["own_session"]
SEEN = FEATURE["seen"]
SEEN_AGE = FEATURE["seen_age"]
SEEN_PLACE = FEATURE["seen_place"]
CATEGORY_SHARE = FEATURE["category_share"]
CATEGORY_LAST = FEATURE["category_last"]
BRAND_SHARE = FEATURE["brand_share"]
NEAR_SUM = FEATURE["near_sum"]
NEAR_MAX = FEATURE["near_max"]
STEPS = FEATURE["steps"]
SESSION_AGE = FEATURE["session_age"]
IDLE = FEATURE["idle"]
HISTORY_SIZE = FEATURE["history_size"]
SESSION_CLICKS = FEATURE["session_clicks"]


@numba.njit(cache=True)
def write_features(
    out: Array,
    categories: Array,
    items: Array,
    prices: Array,
    foreign: bool,
    v: int,
    now: int,
    memory: Memory,
    known: Known,
    entries: Entries,
    limits: Limits,
    scratch: Scratch,
) -> None:
    """Write the features of one list for one visitor.

    Parameters
    ----------
    out : float32 [n, F]
    categories : uint16 [n]
        Written too: the category bucket of each item.
    items : uint64 [n]
    prices : float32 [n]
        -1 where the event gave none: then the catalogue's is filled in.
    foreign
        Whether the order is somebody else's: only then does the list itself tell anything (our own
        slates and candidates are compared with lists of another length).
    v
        Row of the visitor.
    now
        Event time, ms.
    """
    out[:] = 0.0
    mean_price = _mean_price(memory, v)
    session_new = now - memory.last_ts[v] > limits.session_gap or memory.last_ts[v] == 0
    session_start = now if session_new else memory.session_ts[v]
    gather_neighbours(scratch, v, now, memory, known)
    for i in range(len(items)):
        item, row = items[i], out[i]
        at, entry = find(known.keys, known.rows, item), find(entries.keys, entries.rows, item)
        born = known.first_seen[at] if at >= 0 else 0
        category, brand = 0, 0
        if entry >= 0:
            category, brand = entries.category[entry], entries.brand[entry]
            born = entries.published[entry] if entries.published[entry] > 0 else born
            if prices[i] < 0:
                prices[i] = entries.price[entry]
        categories[i] = category
        write_item_features(
            row,
            at,
            known.stats,
            known.stats_at,
            born,
            now,
            known.prior,
            known.half_life_short,
            known.half_life_long,
        )
        write_category_features(
            row,
            category,
            known.category_stats,
            known.category_stats_at,
            now,
            known.prior,
            known.half_life_short,
        )
        _write_own(row, item, v, now, session_start, memory)
        _write_taste(row, category, brand, v, memory)
        row[NEAR_SUM], row[NEAR_MAX] = near_features(scratch, item)
        row[PRICE] = math.log1p(prices[i]) if prices[i] >= 0 else -1.0
        row[PRICE_TO_OWN] = _log_ratio(prices[i], mean_price)
        row[STEPS] = 0.0 if session_new else math.log1p(memory.steps[v])
        row[SESSION_AGE] = math.log1p(max(now - session_start, 0) / 1000.0)
        row[IDLE] = 0.0 if memory.last_ts[v] == 0 else math.log1p(max(now - memory.last_ts[v], 0) / 1000.0)
        row[SESSION_CLICKS] = 0.0 if session_new else math.log1p(memory.session_clicks[v])
        row[HISTORY_SIZE] = _history_size(memory, v)
        row[FROM_TOUCHED], row[FROM_CLICKED] = NONE_PLACE, NONE_PLACE
    _write_seen(out, items, v, now, memory)
    if foreign:
        _write_list(out, items, prices, v, session_new, memory)


@numba.njit(cache=True)
def write_age(out: Array, v: int, now: int, memory: Memory) -> None:
    """Seconds since each history entry of a visitor, -1 where there is none; `out` is float32 [H]."""
    for k in range(len(out)):
        gone = max(now - memory.history_ts[v, k], 0) / 1000.0
        out[k] = gone if memory.history_item[v, k] != 0 else -1.0


@numba.njit(cache=True)
def gather_neighbours(scratch: Scratch, v: int, now: int, memory: Memory, known: Known) -> None:
    """Add up the neighbours of a visitor's history in `scratch`; those of dismissed items count nothing."""
    age = np.empty(memory.history_item.shape[1], np.float32)
    write_age(age, v, now, memory)
    for k in range(len(age)):
        if memory.history_flags[v, k] & DISMISSED != 0:
            age[k] = FORGOTTEN
    gather_near(
        scratch,
        memory.history_item[v],
        age,
        now,
        known.keys,
        known.rows,
        known.near,
        known.near_weight,
        known.near_at,
        known.history_half_life,
        known.near_half_life,
    )


@numba.njit(cache=True)
def _history_size(memory: Memory, v: int) -> int:
    n = 0
    while n < memory.history_item.shape[1] and memory.history_item[v, n] != 0:
        n += 1
    return n


@numba.njit(cache=True)
def _mean_price(memory: Memory, v: int) -> float:
    total, n = 0.0, 0
    for k in range(memory.history_item.shape[1]):
        if memory.history_item[v, k] != 0 and memory.history_price[v, k] > 0:
            total += memory.history_price[v, k]
            n += 1
    return total / n if n else -1.0


@numba.njit(cache=True)
def _log_ratio(price: float, to: float) -> float:
    return math.log((price + 0.01) / (to + 0.01)) if price >= 0 and to >= 0 else -1.0


@numba.njit(cache=True)
def _write_own(row: Array, item: np.uint64, v: int, now: int, session_start: int, memory: Memory) -> None:
    for k in range(memory.history_item.shape[1]):
        if memory.history_item[v, k] == item:
            row[OWN_EVENTS] = memory.history_events[v, k]
            row[OWN_AGE] = math.log1p(max(now - memory.history_ts[v, k], 0) / 1000.0)
            row[OWN_RECENCY] = 1.0 / (1.0 + k)
            row[OWN_CLICKS] = memory.history_clicks[v, k]
            row[OWN_CARTS] = memory.history_carts[v, k]
            row[OWN_PURCHASES] = memory.history_purchases[v, k]
            row[OWN_SESSION] = memory.history_ts[v, k] >= session_start
            return


@numba.njit(cache=True)
def _write_taste(row: Array, category: int, brand: int, v: int, memory: Memory) -> None:
    weight, total, same_category, same_brand = 1.0, 0.0, 0.0, 0.0
    for k in range(memory.history_item.shape[1]):
        if memory.history_item[v, k] == 0:
            break
        if memory.history_flags[v, k] & DISMISSED != 0:
            continue  # what is not wanted is no taste
        total += weight
        if category != 0 and memory.history_category[v, k] == category:
            same_category += weight
            if k == 0:
                row[CATEGORY_LAST] = 1.0
        if brand != 0 and memory.history_brand[v, k] == brand:
            same_brand += weight
        weight *= RECENCY
    if total > 0:
        row[CATEGORY_SHARE] = same_category / total
        row[BRAND_SHARE] = same_brand / total


@numba.njit(cache=True)
def _write_seen(out: Array, items: Array, v: int, now: int, memory: Memory) -> None:
    """Which of the items were shown before, when and where; one pass over the lists remembered."""
    out[:, SEEN_AGE] = -1.0
    for q in range(memory.list_start.shape[1]):
        start = memory.list_start[v, q]
        if start < 0 or start < memory.head[0] - RING:
            break
        age = math.log1p(max(now - memory.list_ts[v, q], 0) / 1000.0)
        for place in range(memory.list_size[v, q]):
            shown = memory.ring[(start + place) % RING]
            for i in range(len(items)):
                if items[i] == shown:
                    if out[i, SEEN] == 0:
                        out[i, SEEN_AGE], out[i, SEEN_PLACE] = age, place + 1
                    out[i, SEEN] += 1


@numba.njit(cache=True)
def _write_list(out: Array, items: Array, prices: Array, v: int, session_new: bool, memory: Memory) -> None:
    n = len(items)
    priced = np.sort(prices[prices >= 0])
    touched = -1
    if memory.history_item[v, 0] != 0:
        for i in range(n):
            if items[i] == memory.history_item[v, 0]:
                touched = i
    same = _same_list(items, v, memory)
    for i in range(n):
        row = out[i]
        row[LIST_SIZE] = math.log1p(n)
        row[PRIOR_RANK] = i + 1
        row[SAME_LIST] = same
        if touched >= 0:
            row[FROM_TOUCHED] = i - touched
        if memory.click_place[v] > 0 and not session_new:
            row[FROM_CLICKED] = i + 1 - memory.click_place[v]
        if prices[i] < 0:
            row[PRICE_RANK], row[PRICE_TO_MEDIAN], row[PRICE_TO_MIN] = -1.0, -1.0, -1.0
        else:
            row[PRICE_RANK] = np.searchsorted(priced, prices[i]) / len(priced)
            row[PRICE_TO_MEDIAN] = _log_ratio(prices[i], priced[len(priced) // 2])
            row[PRICE_TO_MIN] = _log_ratio(prices[i], priced[0])


@numba.njit(cache=True)
def _same_list(items: Array, v: int, memory: Memory) -> bool:
    start = memory.list_start[v, 0]
    if start < 0 or start < memory.head[0] - RING or memory.list_size[v, 0] != len(items):
        return False
    for i in range(len(items)):  # noqa: SIM110  a generator does not compile
        if memory.ring[(start + i) % RING] != items[i]:
            return False
    return True
