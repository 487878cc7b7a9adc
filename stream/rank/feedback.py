"""The state kernel: events in order, one by one, into visitors' state, examples and labels."""

from __future__ import annotations

import math

import numba

from models.batch import Array
from models.covisitation import Scratch
from models.statistics import IMPRESSIONS_LONG
from models.table import find
from stream.rank.catalogue import Entries
from stream.rank.decode import CLICK, IMPRESSION, PURCHASE, SEARCH
from stream.rank.features import write_age, write_features
from stream.rank.given import Given, Seen
from stream.rank.history import touch
from stream.rank.known import Known, Limits
from stream.rank.list_features import lives
from stream.rank.next_item import Pool, write_next
from stream.rank.visitors import A_LIST, A_SEARCH, ACT_ELSEWHERE, ACT_IN_LIST, RING, Memory, Record

NO_LIST = -1
"""List of a feedback that no list explains."""

YOUNG_MS = 60_000
"""An item published less than this before it is shown counts as young."""


@numba.njit(cache=True)
def take_events(
    given: Given,
    seen: Seen,
    memory: Memory,
    known: Known,
    entries: Entries,
    limits: Limits,
    scratch: Scratch,
    pool: Pool,
) -> None:
    """Process events in order: freeze features, find lists of feedback, update the visitors."""
    for i in range(len(given.event)):
        event = given.event[i]
        v, now, kind, row = event["visitor"], event["ts"], event["kind"], event["row"]
        visitor, own, lists = memory.visitor[v], memory.history[v], memory.lists[v]
        if event["context"][0] != 0:
            visitor["context"][:] = event["context"]
        if kind == IMPRESSION:
            _freeze(event, given, seen, memory, known, entries, limits, scratch)
            _open_session(visitor, now, limits.session_gap)
            _remember_list(event, given.shown, lists, memory.ring, memory.head)
            visitor["last"] = A_LIST
        elif kind != SEARCH:
            act = seen.act[row]
            for k in range(len(own)):
                seen.act_history[row, k] = own[k]["item"]
            write_age(seen.act_age[row], own, now)
            seen.act_context[row, :] = visitor["context"]
            _find_list(event, act, lists, memory.ring, memory.head[0], limits.list_window)
            if act["list_offset"] == NO_LIST and kind <= PURCHASE:
                write_next(event, seen, memory, known, entries, limits, scratch, pool)
            _open_session(visitor, now, limits.session_gap)
            entry = find(entries.keys, entries.rows, event["item"])
            if entry >= 0:
                act["category"] = entries.item[entry]["category"]
            in_list = act["in_list"] != 0
            touch(event, in_list, entry, own, memory.spare, entries.item)
            if kind == CLICK:
                visitor["session_clicks"] += 1
                if in_list:
                    visitor["click_place"] = act["place"] + 1
            visitor["last"] = ACT_IN_LIST if in_list else ACT_ELSEWHERE
        else:
            _open_session(visitor, now, limits.session_gap)
            visitor["last"] = A_SEARCH
        visitor["steps"] += 1
        visitor["last_ts"] = max(visitor["last_ts"], now)


@numba.njit(cache=True)
def _open_session(visitor: Record, now: int, gap: int) -> None:
    if visitor["last_ts"] == 0 or now - visitor["last_ts"] > gap:
        visitor["session_ts"] = now
        visitor["steps"], visitor["session_clicks"], visitor["click_place"] = 0, 0, 0


@numba.njit(cache=True)
def _freeze(
    event: Record,
    given: Given,
    seen: Seen,
    memory: Memory,
    known: Known,
    entries: Entries,
    limits: Limits,
    scratch: Scratch,
) -> None:
    """Write everything the example of one list needs, as of now."""
    v, b, now, first, last = event["visitor"], event["row"], event["ts"], event["first"], event["last"]
    items, category = given.shown[first:last], seen.category[first:last]
    write_features(
        seen.features[first:last],
        category,
        items,
        given.price[first:last],
        event["own"] == 0,
        v,
        now,
        memory,
        known,
        entries,
        limits,
        scratch,
    )
    own = memory.history[v]
    for k in range(len(own)):
        seen.history[b, k], seen.history_category[b, k] = own[k]["item"], own[k]["category"]
    write_age(seen.age[b], own, now)
    seen.context[b, :] = memory.visitor[v]["context"]
    _measure(seen.list[b], items, category, now, known, entries)


@numba.njit(cache=True)
def _measure(out: Record, items: Array, category: Array, now: int, known: Known, entries: Entries) -> None:
    """How diverse, surprising and young a list is; into a `LIST`."""
    for j in range(len(items)):
        for k in range(j):
            if category[j] != 0 and category[k] != 0:
                out["pairs"] += 1
                if category[j] != category[k]:
                    out["apart"] += 1
        row = find(known.keys, known.rows, items[j])
        shown = known.stats[row, IMPRESSIONS_LONG] if row >= 0 else 0.0
        out["surprise"] -= math.log2((shown + 1.0) / (known.total + len(known.stats)))
        entry = find(entries.keys, entries.rows, items[j])
        if entry >= 0 and 0 <= now - entries.item[entry]["published"] < YOUNG_MS:
            out["young"] += 1


@numba.njit(cache=True)
def _remember_list(event: Record, shown: Array, lists: Array, ring: Array, head: Array) -> None:
    for q in range(len(lists) - 1, 0, -1):
        lists[q] = lists[q - 1]
    newest, first, size = lists[0], event["first"], event["last"] - event["first"]
    newest["offset"], newest["ts"], newest["slate"] = event["offset"], event["ts"], event["slate"]
    newest["start"], newest["size"] = head[0], size
    newest["arm"], newest["surface"] = event["arm"], event["surface"]
    newest["explored"], newest["odds"] = event["explored"], event["odds"]
    newest["pool"], newest["chosen"] = event["pool"], event["chosen"]
    for j in range(size):
        ring[(head[0] + j) % RING] = shown[first + j]
    head[0] += size


@numba.njit(cache=True)
def _find_list(event: Record, act: Record, lists: Array, ring: Array, head: int, window: int) -> None:
    """The list of the slate named, else the newest one within the window that shows the item.

    Where lists have names, feedback that names none is given elsewhere: it belongs to the list, as its
    consequence, but does not answer it.
    """
    item, slate = event["item"], event["slate"]
    act["list_offset"], act["place"], act["in_list"] = NO_LIST, -1, 0
    act["arm"], act["surface"] = event["arm"], event["surface"]
    found, place = -1, -1
    for q in range(len(lists)):
        one = lists[q]
        start = one["start"]
        if not lives(start, head):
            break
        named = slate != 0 and one["slate"] == slate
        if not named and (found >= 0 or event["ts"] - one["ts"] > window):
            continue
        for j in range(one["size"]):
            if ring[(start + j) % RING] == item:
                found, place = q, j
                break
        if named and found == q:
            break
    if found >= 0:
        one = lists[found]
        act["list_offset"], act["place"] = one["offset"], place
        act["in_list"] = one["slate"] == 0 or one["slate"] == slate
        act["arm"], act["surface"] = one["arm"], one["surface"]
        if place + 1 == one["explored"]:
            act["odds"], act["pool"], act["chosen"] = one["odds"], one["pool"], one["chosen"]
