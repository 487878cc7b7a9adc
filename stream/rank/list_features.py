"""Features of an item among the others: in its list, and in the lists shown before; used by `features`."""

from __future__ import annotations

import math

import numba
import numpy as np

from models.batch import FEATURE, Array
from stream.rank.visitors import RING, Record

# indices as module constants: numba compiles them in
LIST_SIZE = FEATURE["list_size"]
PRIOR_RANK = FEATURE["prior_rank"]
PRICE_RANK = FEATURE["price_rank"]
PRICE_TO_MEDIAN = FEATURE["price_to_median"]
PRICE_TO_MIN = FEATURE["price_to_min"]
LIST_RECENCY = FEATURE["list_recency"]
SAME_LIST = FEATURE["same_list"]
FROM_TOUCHED = FEATURE["from_touched"]
FROM_CLICKED = FEATURE["from_clicked"]
OWN_RECENCY = FEATURE["own_recency"]
SEEN = FEATURE["seen"]
SEEN_AGE = FEATURE["seen_age"]
SEEN_PLACE = FEATURE["seen_place"]


@numba.njit(cache=True)
def log_ratio(price: float, to: float) -> float:
    """Log of how much dearer a price is than another; -1 where one is not known."""
    return math.log((price + 0.01) / (to + 0.01)) if price >= 0 and to >= 0 else -1.0


@numba.njit(cache=True)
def log_seconds(ms: int) -> float:
    """Log1p of a time in seconds, 0 where it has not come yet."""
    return math.log1p(max(ms, 0) / 1000.0)


@numba.njit(cache=True)
def lives(start: int, head: int) -> bool:
    """Whether there is a list, and the ring still holds its items."""
    return start > 0 and start >= head - RING


@numba.njit(cache=True)
def write_seen(out: Array, items: Array, now: int, lists: Array, ring: Array, head: int) -> None:
    """Which of the items were shown before, when and where; one pass over the lists remembered."""
    out[:, SEEN_AGE] = -1.0
    for q in range(len(lists)):
        start, size = lists[q]["start"], lists[q]["size"]
        if not lives(start, head):
            break
        age = log_seconds(now - lists[q]["ts"])
        for place in range(size):
            shown = ring[(start + place) % RING]
            for i in range(len(items)):
                if items[i] == shown:
                    if out[i, SEEN] == 0:
                        out[i, SEEN_AGE], out[i, SEEN_PLACE] = age, place + 1
                    out[i, SEEN] += 1


@numba.njit(cache=True)
def write_list(out: Array, clicked: int) -> None:
    """Each item by when it was touched, and by its place from the place `clicked` last (0 none).

    Needs what `features` wrote of the item's own history.
    """
    n, touched = len(out), -1
    for i in range(n):
        recency, since = out[i, OWN_RECENCY], 0
        if recency == 0:
            continue
        for row in out:
            since += row[OWN_RECENCY] > recency
        out[i, LIST_RECENCY] = 1.0 / (1.0 + since)
        if since == 0:
            touched = i
    for i in range(n):
        row = out[i]
        row[LIST_SIZE] = math.log1p(n)
        row[PRIOR_RANK] = i + 1
        if touched >= 0:
            row[FROM_TOUCHED] = i - touched
        if clicked > 0:
            row[FROM_CLICKED] = i + 1 - clicked


@numba.njit(cache=True)
def write_prices(out: Array, prices: Array) -> None:
    """Each price among those of the list; -1 where it is not known."""
    ordered, n = np.empty(len(prices), np.float32), 0
    for price in prices:
        if price >= 0:  # np.sort would do, but takes seconds to compile
            k = n
            while k > 0 and ordered[k - 1] > price:
                ordered[k] = ordered[k - 1]
                k -= 1
            ordered[k] = price
            n += 1
    for i in range(len(prices)):
        row = out[i]
        if prices[i] < 0:
            row[PRICE_RANK], row[PRICE_TO_MEDIAN], row[PRICE_TO_MIN] = -1.0, -1.0, -1.0
            continue
        cheaper = 0
        while ordered[cheaper] < prices[i]:
            cheaper += 1
        row[PRICE_RANK] = cheaper / n
        row[PRICE_TO_MEDIAN] = log_ratio(prices[i], ordered[n // 2])
        row[PRICE_TO_MIN] = log_ratio(prices[i], ordered[0])


@numba.njit(cache=True)
def same_list(items: Array, before: Record, ring: Array, head: int) -> bool:
    """Whether the list `before` (a `SHOWN`) had the same items in the same order."""
    start = before["start"]
    if not lives(start, head) or before["size"] != len(items):
        return False
    for i in range(len(items)):  # noqa: SIM110  a generator does not compile
        if ring[(start + i) % RING] != items[i]:
            return False
    return True
