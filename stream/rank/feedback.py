"""The state kernel: events in order, one by one, into visitors' state, examples and labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from models.batch import Array, F
from models.covisitation import Scratch
from models.table import find
from stream.rank.catalogue import Entries
from stream.rank.decode import (
    CART,
    CLICK,
    DISMISS,
    IMPRESSION,
    PURCHASE,
    REFUND,
    SEARCH,
    Columns,
)
from stream.rank.features import Known, Limits, write_age, write_features
from stream.rank.visitors import BOUGHT, DISMISSED, IN_CART, RING, Memory

NO_LIST = -1
"""List of a feedback that no list explains."""


class Seen(NamedTuple):
    """What the kernel writes, for B impressions with N items and K feedbacks, in the order of events.

    `rank` says for each event which row of its kind it is.
    """

    row: NDArray[Any]  # int64 [n]: index among the impressions, or among the feedbacks
    # per impression
    history: NDArray[Any]  # uint64 [B, H]
    history_category: NDArray[Any]  # uint16 [B, H]
    age: NDArray[Any]  # float32 [B, H]
    pairs: NDArray[Any]  # int64 [B]: pairs of items with known categories
    apart: NDArray[Any]  # int64 [B]: of these, pairs of different categories
    surprise: NDArray[Any]  # float64 [B]: sum over the items of -log2 of their share of impressions
    young: NDArray[Any]  # int64 [B]: items younger than a minute
    # per item shown
    category: NDArray[Any]  # uint16 [N]
    features: NDArray[Any]  # float32 [N, F]
    # per feedback
    act_history: NDArray[Any]  # uint64 [K, H]
    act_age: NDArray[Any]  # float32 [K, H]
    act_category: NDArray[Any]  # uint16 [K]
    list_offset: NDArray[Any]  # int64 [K]: offset of its list, or `NO_LIST`
    place: NDArray[Any]  # int64 [K]: place in the list from 0, -1 without a list
    arm: NDArray[Any]  # uint8 [K]: the list's, else the user's
    surface: NDArray[Any]  # uint16 [K]


def blank(columns: Columns, history: int) -> Seen:
    """Arrays of the sizes that these events need."""
    shows = columns.kind == IMPRESSION
    acts = columns.kind < IMPRESSION
    row = np.where(shows, np.cumsum(shows), np.cumsum(acts)) - 1
    b, k, n = int(shows.sum()), int(acts.sum()), len(columns.shown)
    return Seen(
        row=row.astype(np.int64),
        history=np.empty((b, history), np.uint64),
        history_category=np.empty((b, history), np.uint16),
        age=np.empty((b, history), np.float32),
        pairs=np.zeros(b, np.int64),
        apart=np.zeros(b, np.int64),
        surprise=np.zeros(b),
        young=np.zeros(b, np.int64),
        category=np.empty(n, np.uint16),
        features=np.empty((n, F), np.float32),
        act_history=np.empty((k, history), np.uint64),
        act_age=np.empty((k, history), np.float32),
        act_category=np.zeros(k, np.uint16),
        list_offset=np.empty(k, np.int64),
        place=np.empty(k, np.int64),
        arm=np.empty(k, np.uint8),
        surface=np.empty(k, np.uint16),
    )


class Given(NamedTuple):
    """Columns of the events that the kernel reads; see `decode.Columns`.

    `visitor` is int32 [n], `arm` uint8 [n] (the list's where its trace says so, else the user's),
    `surface` uint16 [n].
    """

    offset: NDArray[Any]
    ts: NDArray[Any]
    kind: NDArray[Any]
    visitor: NDArray[Any]
    arm: NDArray[Any]
    surface: NDArray[Any]
    item: NDArray[Any]
    price: NDArray[Any]
    slate: NDArray[Any]
    own: NDArray[Any]
    start: NDArray[Any]
    shown: NDArray[Any]
    shown_price: NDArray[Any]


@numba.njit(cache=True)
def take_events(
    given: Given,
    seen: Seen,
    memory: Memory,
    known: Known,
    entries: Entries,
    limits: Limits,
    scratch: Scratch,
) -> None:
    """Process events in order: freeze features, find lists of feedback, update the visitors."""
    for i in range(len(given.ts)):
        v, now, kind = given.visitor[i], given.ts[i], given.kind[i]
        if kind == IMPRESSION:
            _freeze(i, seen.row[i], given, seen, memory, known, entries, limits, scratch)
            _open_session(v, now, memory, limits)
            _remember_list(i, given, memory)
        elif kind != SEARCH:
            k = seen.row[i]
            seen.act_history[k] = memory.history_item[v]
            write_age(seen.act_age[k], v, now, memory)
            _find_list(i, k, given, seen, memory, limits)
            _open_session(v, now, memory, limits)
            entry = find(entries.keys, entries.rows, given.item[i])
            _touch(i, entry, given, memory, entries)
            if entry >= 0:
                seen.act_category[k] = entries.category[entry]
            if kind == CLICK:
                memory.session_clicks[v] += 1
                if seen.place[k] >= 0:
                    memory.click_place[v] = seen.place[k] + 1
        else:
            _open_session(v, now, memory, limits)
        memory.steps[v] += 1
        memory.last_ts[v] = max(memory.last_ts[v], now)


@numba.njit(cache=True)
def _open_session(v: int, now: int, memory: Memory, limits: Limits) -> None:
    if memory.last_ts[v] == 0 or now - memory.last_ts[v] > limits.session_gap:
        memory.session_ts[v] = now
        memory.steps[v], memory.session_clicks[v], memory.click_place[v] = 0, 0, 0


@numba.njit(cache=True)
def _freeze(
    i: int,
    b: int,
    given: Given,
    seen: Seen,
    memory: Memory,
    known: Known,
    entries: Entries,
    limits: Limits,
    scratch: Scratch,
) -> None:
    """Write everything the example of one list needs, as of now."""
    v, now, first, last = given.visitor[i], given.ts[i], given.start[i], given.start[i + 1]
    items, features, category = given.shown[first:last], seen.features[first:last], seen.category[first:last]
    prices = given.shown_price[first:last]
    foreign = given.own[i] == 0
    write_features(
        features, category, items, prices, foreign, v, now, memory, known, entries, limits, scratch
    )
    seen.history[b] = memory.history_item[v]
    seen.history_category[b] = memory.history_category[v]
    write_age(seen.age[b], v, now, memory)
    for j in range(len(items)):
        for k in range(j):
            if category[j] != 0 and category[k] != 0:
                seen.pairs[b] += 1
                seen.apart[b] += category[j] != category[k]
        row = find(known.keys, known.rows, items[j])
        shown = known.stats[row, 3] if row >= 0 else 0.0
        seen.surprise[b] -= np.log2((shown + 1.0) / (known.total + len(known.stats)))
        entry = find(entries.keys, entries.rows, items[j])
        seen.young[b] += entry >= 0 and 0 <= now - entries.published[entry] < 60_000


@numba.njit(cache=True)
def _remember_list(i: int, given: Given, memory: Memory) -> None:
    v, first, last = given.visitor[i], given.start[i], given.start[i + 1]
    for q in range(memory.list_start.shape[1] - 1, 0, -1):
        memory.list_offset[v, q] = memory.list_offset[v, q - 1]
        memory.list_ts[v, q] = memory.list_ts[v, q - 1]
        memory.list_slate[v, q] = memory.list_slate[v, q - 1]
        memory.list_start[v, q] = memory.list_start[v, q - 1]
        memory.list_size[v, q] = memory.list_size[v, q - 1]
        memory.list_arm[v, q] = memory.list_arm[v, q - 1]
        memory.list_surface[v, q] = memory.list_surface[v, q - 1]
    head = memory.head[0]
    memory.list_offset[v, 0], memory.list_ts[v, 0] = given.offset[i], given.ts[i]
    memory.list_slate[v, 0], memory.list_arm[v, 0] = given.slate[i], given.arm[i]
    memory.list_start[v, 0], memory.list_size[v, 0] = head, last - first
    memory.list_surface[v, 0] = given.surface[i]
    for j in range(last - first):
        memory.ring[(head + j) % RING] = given.shown[first + j]
    memory.head[0] = head + last - first


@numba.njit(cache=True)
def _find_list(i: int, k: int, given: Given, seen: Seen, memory: Memory, limits: Limits) -> None:
    """The list of the slate named, else the newest one within the window that shows the item."""
    v, item, slate = given.visitor[i], given.item[i], given.slate[i]
    seen.list_offset[k], seen.place[k] = NO_LIST, -1
    seen.arm[k], seen.surface[k] = given.arm[i], given.surface[i]
    found, place = -1, -1
    for q in range(memory.list_start.shape[1]):
        start = memory.list_start[v, q]
        if start < 0 or start < memory.head[0] - RING:
            break
        named = slate != 0 and memory.list_slate[v, q] == slate
        if not named and (found >= 0 or given.ts[i] - memory.list_ts[v, q] > limits.list_window):
            continue
        for j in range(memory.list_size[v, q]):
            if memory.ring[(start + j) % RING] == item:
                found, place = q, j
                break
        if named and found == q:
            break
    if found >= 0:
        seen.list_offset[k], seen.place[k] = memory.list_offset[v, found], place
        seen.arm[k], seen.surface[k] = memory.list_arm[v, found], memory.list_surface[v, found]


@numba.njit(cache=True)
def _touch(i: int, entry: int, given: Given, memory: Memory, entries: Entries) -> None:
    """Enter one feedback into the history: clicks, carts and purchases move their item to the front."""
    v, item, kind = given.visitor[i], given.item[i], given.kind[i]
    at = -1
    for k in range(memory.history_item.shape[1]):
        if memory.history_item[v, k] == item:
            at = k
            break
    if at < 0 and kind > PURCHASE and kind != DISMISS:
        return  # nothing there to take back
    if at < 0:
        at = memory.history_item.shape[1] - 1
        _clear_entry(v, at, memory)
        memory.history_item[v, at] = item
        if entry >= 0:
            memory.history_category[v, at], memory.history_brand[v, at] = (
                entries.category[entry],
                entries.brand[entry],
            )
            memory.history_price[v, at] = entries.price[entry]
        memory.history_ts[v, at] = given.ts[i]
        _to_front(v, at, memory)
        at = 0
    if kind <= PURCHASE:
        _to_front(v, at, memory)
        memory.history_ts[v, 0] = max(given.ts[i], memory.history_ts[v, 0])
        memory.history_events[v, 0] = min(memory.history_events[v, 0] + 1, 65_535)
        at = 0
    if given.price[i] >= 0:
        memory.history_price[v, at] = given.price[i]
    _mark(v, at, kind, memory)


@numba.njit(cache=True)
def _mark(v: int, at: int, kind: int, memory: Memory) -> None:
    flags = memory.history_flags[v, at]
    if kind == CLICK:
        memory.history_clicks[v, at] = min(memory.history_clicks[v, at] + 1, 255)
    elif kind == CART:
        memory.history_carts[v, at] = min(memory.history_carts[v, at] + 1, 255)
        flags |= IN_CART
    elif kind == PURCHASE:
        memory.history_purchases[v, at] = min(memory.history_purchases[v, at] + 1, 255)
        flags = (flags | BOUGHT) & ~IN_CART
    elif kind == DISMISS:
        flags |= DISMISSED
    elif kind == REFUND:
        flags &= ~BOUGHT
    else:
        flags &= ~IN_CART
    memory.history_flags[v, at] = flags


@numba.njit(cache=True)
def _clear_entry(v: int, k: int, memory: Memory) -> None:
    memory.history_events[v, k], memory.history_clicks[v, k], memory.history_carts[v, k] = 0, 0, 0
    memory.history_purchases[v, k], memory.history_flags[v, k] = 0, 0
    memory.history_category[v, k], memory.history_brand[v, k], memory.history_price[v, k] = 0, 0, -1.0


@numba.njit(cache=True)
def _to_front(v: int, at: int, memory: Memory) -> None:
    _rotate(memory.history_item[v], at)
    _rotate(memory.history_ts[v], at)
    _rotate(memory.history_events[v], at)
    _rotate(memory.history_clicks[v], at)
    _rotate(memory.history_carts[v], at)
    _rotate(memory.history_purchases[v], at)
    _rotate(memory.history_flags[v], at)
    _rotate(memory.history_category[v], at)
    _rotate(memory.history_brand[v], at)
    _rotate(memory.history_price[v], at)


@numba.njit(cache=True)
def _rotate(values: Array, at: int) -> None:
    """Move ``values[at]`` to the front."""
    kept = values[at]
    for k in range(at, 0, -1):
        values[k] = values[k - 1]
    values[0] = kept
