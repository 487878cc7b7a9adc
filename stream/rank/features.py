"""The feature kernel: what a list looks like to the model, at the impression and when serving alike.

Where a feature is added: name it in `models.batch.FEATURES`, write it in one of the `_write_*`
functions here.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from models.batch import FEATURE, Array
from models.covisitation import SUMS, Scratch, gather_near, near_features
from models.statistics import write_category_features, write_context_features, write_item_features
from models.table import find
from stream.rank.catalogue import Entries
from stream.rank.known import Known, Limits
from stream.rank.list_features import log_ratio, log_seconds, same_list, write_list, write_prices, write_seen
from stream.rank.visitors import A_SEARCH, ACT_ELSEWHERE, ACT_IN_LIST, DISMISSED, Memory

NONE_PLACE = -30.0
"""A place difference where there is no place to compare with."""

RECENCY = 0.9
"""Each history entry weighs so much of the one after it."""


# indices as module constants: numba compiles them in
PRICE = FEATURE["price"]
PRICE_TO_OWN = FEATURE["price_to_own"]
SAME_LIST = FEATURE["same_list"]
FROM_TOUCHED = FEATURE["from_touched"]
FROM_CLICKED = FEATURE["from_clicked"]
OWN_EVENTS = FEATURE["own_events"]
OWN_AGE = FEATURE["own_age"]
OWN_RECENCY = FEATURE["own_recency"]
OWN_CLICKS = FEATURE["own_clicks"]
OWN_LIST_CLICKS = FEATURE["own_list_clicks"]
OWN_CARTS = FEATURE["own_carts"]
OWN_PURCHASES = FEATURE["own_purchases"]
OWN_SESSION = FEATURE["own_session"]
CATEGORY_SHARE = FEATURE["category_share"]
CATEGORY_LAST = FEATURE["category_last"]
BRAND_SHARE = FEATURE["brand_share"]
NEAR_SUM = FEATURE["near_sum"]
STEPS = FEATURE["steps"]
SESSION_AGE = FEATURE["session_age"]
IDLE = FEATURE["idle"]
AFTER_ACT = FEATURE["after_act"]
AFTER_LIST_CLICK = FEATURE["after_list_click"]
AFTER_SEARCH = FEATURE["after_search"]
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
    visitor, own = memory.visitor[v], memory.history[v]
    mean_price, history_size = _summary(own)
    last_ts = visitor["last_ts"]
    session_new = last_ts == 0 or now - last_ts > limits.session_gap
    session_start = now if session_new else visitor["session_ts"]
    gather_neighbours(scratch, own, now, known)
    for i in range(len(items)):
        item, row = items[i], out[i]
        at, entry = find(known.keys, known.rows, item), find(entries.keys, entries.rows, item)
        born = known.first_seen[at] if at >= 0 else 0
        category, brand = 0, 0
        if entry >= 0:
            told = entries.item[entry]
            category, brand = told["category"], told["brand"]
            born = told["published"] if told["published"] > 0 else born
            if prices[i] < 0:
                prices[i] = told["price"]
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
        write_context_features(
            row,
            category,
            visitor["context"],
            known.context_stats,
            known.context_stats_at,
            now,
            known.half_life_short,
        )
        _write_own(row, item, own, now, session_start)
        _write_taste(row, category, brand, own)
        near_features(scratch, item, row[NEAR_SUM : NEAR_SUM + SUMS])
        row[PRICE] = math.log1p(prices[i]) if prices[i] >= 0 else -1.0
        row[PRICE_TO_OWN] = log_ratio(prices[i], mean_price)
        row[SESSION_AGE] = log_seconds(now - session_start)
        row[IDLE] = 0.0 if last_ts == 0 else log_seconds(now - last_ts)
        if not session_new:
            row[STEPS] = math.log1p(visitor["steps"])
            row[SESSION_CLICKS] = math.log1p(visitor["session_clicks"])
            row[AFTER_ACT] = visitor["last"] == ACT_ELSEWHERE
            row[AFTER_LIST_CLICK] = visitor["last"] == ACT_IN_LIST
            row[AFTER_SEARCH] = visitor["last"] == A_SEARCH
        row[HISTORY_SIZE] = history_size
        row[FROM_TOUCHED], row[FROM_CLICKED] = NONE_PLACE, NONE_PLACE
    lists = memory.lists[v]
    write_seen(out, items, now, lists, memory.ring, memory.head[0])
    if foreign:
        clicked = 0 if session_new else visitor["click_place"]
        write_list(out, clicked)
        write_prices(out, prices)
        out[:, SAME_LIST] = same_list(items, lists[0], memory.ring, memory.head[0])


@numba.njit(cache=True)
def write_age(out: Array, own: Array, now: int) -> None:
    """Seconds since each entry of a history, -1 where there is none; `out` is float32 [H]."""
    for k in range(len(out)):
        out[k] = max(now - own[k]["ts"], 0) / 1000.0 if own[k]["item"] != 0 else -1.0


@numba.njit(cache=True)
def gather_neighbours(scratch: Scratch, own: Array, now: int, known: Known) -> None:
    """Add up the neighbours of a history in `scratch`; those of dismissed items count nothing."""
    item, age = np.zeros(len(own), np.uint64), np.empty(len(own), np.float32)
    write_age(age, own, now)
    for k in range(len(own)):
        if own[k]["flags"] & DISMISSED == 0:
            item[k] = own[k]["item"]
    gather_near(
        scratch,
        item,
        age,
        now,
        known.keys,
        known.rows,
        known.near,
        known.near_weight,
        known.near_next,
        known.near_often,
        known.near_at,
        known.history_half_life,
        known.near_half_life,
    )


@numba.njit(cache=True)
def _summary(own: Array) -> tuple[float, int]:
    """Mean of the prices known in a history (-1 without any), and its length."""
    total, priced, n = 0.0, 0, 0
    while n < len(own) and own[n]["item"] != 0:
        if own[n]["price"] > 0:
            total += own[n]["price"]
            priced += 1
        n += 1
    return (total / priced if priced else -1.0), n


@numba.njit(cache=True)
def _write_own(row: Array, item: np.uint64, own: Array, now: int, session_start: int) -> None:
    for k in range(len(own)):
        entry = own[k]
        if entry["item"] == item:
            row[OWN_EVENTS] = entry["events"]
            row[OWN_AGE] = log_seconds(now - entry["ts"])
            row[OWN_RECENCY] = 1.0 / (1.0 + k)
            row[OWN_CLICKS] = entry["clicks"]
            row[OWN_LIST_CLICKS] = entry["list_clicks"]
            row[OWN_CARTS] = entry["carts"]
            row[OWN_PURCHASES] = entry["purchases"]
            row[OWN_SESSION] = entry["ts"] >= session_start
            return


@numba.njit(cache=True)
def _write_taste(row: Array, category: int, brand: int, own: Array) -> None:
    weight, total, same_category, same_brand = 1.0, 0.0, 0.0, 0.0
    for k in range(len(own)):
        entry = own[k]
        if entry["item"] == 0:
            break
        if entry["flags"] & DISMISSED != 0:
            continue  # what is not wanted is no taste
        total += weight
        if category != 0 and entry["category"] == category:
            same_category += weight
            if k == 0:
                row[CATEGORY_LAST] = 1.0
        if brand != 0 and entry["brand"] == brand:
            same_brand += weight
        weight *= RECENCY
    if total > 0:
        row[CATEGORY_SHARE] = same_category / total
        row[BRAND_SHARE] = same_brand / total
