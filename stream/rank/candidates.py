"""Which items may follow: the sources, merged per visitor without repeats.

Where a source is added: name it in `SOURCES`, offer its items in `find_candidates`.
"""

from __future__ import annotations

import numba
import numpy as np

from models.batch import Array
from models.covisitation import Scratch, top_near
from models.table import find
from stream.rank.catalogue import Entries
from stream.rank.features import Known, Limits, gather_neighbours
from stream.rank.visitors import BOUGHT, DISMISSED, IN_CART, Memory

SOURCES = ("cart", "recent", "near", "trending", "new")
CART, RECENT, NEAR, TRENDING, NEW = range(len(SOURCES))

NEW_SHARE, TRENDING_SHARE = 8, 3
"""At least 1 in so many places goes to new items, to trending ones (where there are as many)."""


@numba.njit(cache=True)
def find_candidates(
    out: Array,
    source: Array,
    v: int,
    now: int,
    trending: Array,
    newest: Array,
    memory: Memory,
    known: Known,
    entries: Entries,
    limits: Limits,
    scratch: Scratch,
) -> int:
    """Collect candidates for one visitor.

    Parameters
    ----------
    out, source : uint64 [C], uint8 [C]
        Filled from the start: item, and the first source that offered it.
    v
        Row of the visitor; -1 for a stranger.
    trending, newest : uint64 [*]
        Best first.

    Returns
    -------
    int
        How many were found.
    """
    limit = len(out)
    taken = np.zeros(_slots(limit), np.uint64)
    n = 0
    if v >= 0:
        n = _own(out, source, n, v, taken, memory, known, entries, limits)
        gather_neighbours(scratch, v, now, memory, known)
        near = np.empty(limit, np.uint64)
        weight = np.empty(limit, np.float32)
        found = top_near(scratch, near, weight)
        room = limit - min(len(newest), limit // NEW_SHARE) - min(len(trending), limit // TRENDING_SHARE)
        n = _offer(near[:found], NEAR, out, source, n, room, v, taken, memory, known, entries, limits)
    room = limit - min(len(newest), limit // NEW_SHARE)
    n = _offer(trending, TRENDING, out, source, n, room, v, taken, memory, known, entries, limits)
    return _offer(newest, NEW, out, source, n, limit, v, taken, memory, known, entries, limits)


@numba.njit(cache=True)
def _slots(limit: int) -> int:
    slots = 16
    while slots < 4 * limit:
        slots *= 2
    return slots


@numba.njit(cache=True)
def _own(
    out: Array,
    source: Array,
    n: int,
    v: int,
    taken: Array,
    memory: Memory,
    known: Known,
    entries: Entries,
    limits: Limits,
) -> int:
    """What lies in the visitor's cart, then what was touched lately."""
    for kind in (CART, RECENT):
        for k in range(memory.history_item.shape[1]):
            if memory.history_item[v, k] == 0:
                break
            in_cart = memory.history_flags[v, k] & IN_CART != 0
            if in_cart == (kind == CART):
                one = memory.history_item[v, k : k + 1]
                n = _offer(one, kind, out, source, n, len(out), v, taken, memory, known, entries, limits)
    return n


@numba.njit(cache=True)
def _offer(
    items: Array,
    kind: int,
    out: Array,
    source: Array,
    n: int,
    room: int,
    v: int,
    taken: Array,
    memory: Memory,
    known: Known,
    entries: Entries,
    limits: Limits,
) -> int:
    mask = len(taken) - 1
    for item in items:
        if n >= room:
            break
        entry = find(entries.keys, entries.rows, item)
        if entry >= 0:
            if entries.available[entry] == 0:
                continue
        elif find(known.keys, known.rows, item) < 0:
            continue  # nobody knows its name
        if v >= 0 and _unwanted(item, v, memory, limits):
            continue
        slot = np.int64(item & np.uint64(mask))
        while taken[slot] != 0 and taken[slot] != item:
            slot = (slot + 1) & mask
        if taken[slot] == 0:
            taken[slot], out[n], source[n] = item, item, kind
            n += 1
    return n


@numba.njit(cache=True)
def _unwanted(item: np.uint64, v: int, memory: Memory, limits: Limits) -> bool:
    for k in range(memory.history_item.shape[1]):
        if memory.history_item[v, k] == item:
            flags = memory.history_flags[v, k]
            return flags & DISMISSED != 0 or (limits.exclude_bought and flags & BOUGHT != 0)
    return False
