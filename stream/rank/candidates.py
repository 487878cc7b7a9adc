"""Which items may follow: the sources, merged per visitor without repeats.

Where a source is added: name it in `SOURCES`, offer its items in `find_candidates`.
"""

from __future__ import annotations

import numba
import numpy as np

from models.batch import Array
from models.covisitation import Scratch, top_near
from models.table import find
from stream.rank.alike import Alike
from stream.rank.catalogue import Entries
from stream.rank.features import gather_neighbours
from stream.rank.known import Known
from stream.rank.visitors import BOUGHT, DISMISSED, IN_CART

SOURCES = ("cart", "recent", "near", "alike", "trending", "new")
CART, RECENT, NEAR, ALIKE, TRENDING, NEW = np.arange(len(SOURCES), dtype=np.uint8)

NEW_SHARE, TRENDING_SHARE, ALIKE_SHARE = 8, 4, 3
"""At least 1 in so many places goes to new, to trending, to alike items (where there are as many)."""

KINDS = 8
"""Items of the history whose kind is looked at, newest first."""


@numba.njit(cache=True)
def find_candidates(
    out: Array,
    source: Array,
    own: Array,
    now: int,
    personal: bool,
    trending: Array,
    newest: Array,
    alike: Alike,
    known: Known,
    entries: Entries,
    exclude_bought: bool,
    scratch: Scratch,
) -> int:
    """Collect candidates for one visitor.

    Parameters
    ----------
    out, source : uint64 [C], uint8 [C]
        Filled from the start: item, and the first source that offered it.
    own
        History of the visitor, `ENTRY` [H].
    personal
        False: only what would be offered to anybody.
    trending, newest : uint64 [*]
        Best first.
    alike
        Items by kind.

    Returns
    -------
    int
        How many were found.
    """
    limit = len(out)
    for_new, for_trending = min(len(newest), limit // NEW_SHARE), min(len(trending), limit // TRENDING_SHARE)
    unwanted = DISMISSED | BOUGHT if exclude_bought else DISMISSED
    taken = np.zeros(_slots(limit), np.uint64)
    n = len(out) - limit  # 0, but not as a literal, which would be compiled apart
    if personal:
        for in_cart in (True, False):
            for k in range(len(own)):
                item = own[k]["item"]
                if (own[k]["flags"] & IN_CART != 0) == in_cart and item != 0:
                    kind = CART if in_cart else RECENT
                    n = _offer(item, kind, n, limit, out, source, taken, own, unwanted, known, entries)
        gather_neighbours(scratch, own, now, known)
        near, weight = np.empty(limit, np.uint64), np.empty(limit, np.float32)
        room = limit - for_new - for_trending
        for k in range(top_near(scratch, near, weight)):
            most = room - limit // ALIKE_SHARE
            n = _offer(near[k], NEAR, n, most, out, source, taken, own, unwanted, known, entries)
        for k in range(KINDS * alike.items.shape[1]):
            # the best of each kind first, then the second best of each
            item = _alike(own, k % KINDS, k // KINDS, alike, entries)
            if item != 0:
                n = _offer(item, ALIKE, n, room, out, source, taken, own, unwanted, known, entries)
    for item in trending:
        n = _offer(item, TRENDING, n, limit - for_new, out, source, taken, own, unwanted, known, entries)
    for item in newest:
        n = _offer(item, NEW, n, limit, out, source, taken, own, unwanted, known, entries)
    return n


@numba.njit(cache=True)
def _alike(own: Array, k: int, place: int, alike: Alike, entries: Entries) -> np.uint64:
    """The item at one place among those of the kind of history item k; 0 where there is none."""
    if k < len(own) and own[k]["item"] != 0:
        entry = find(entries.keys, entries.rows, own[k]["item"])
        if 0 <= entry < len(alike.kind):
            return np.uint64(alike.items[alike.kind[entry], place])
    return np.uint64(0)


@numba.njit(cache=True)
def _slots(limit: int) -> int:
    slots = 16
    while slots < 4 * limit:
        slots *= 2
    return slots


@numba.njit(cache=True)
def _offer(
    item: np.uint64,
    kind: np.uint8,
    n: int,
    room: int,
    out: Array,
    source: Array,
    taken: Array,
    own: Array,
    unwanted: int,
    known: Known,
    entries: Entries,
) -> int:
    """Add one item to the `n` found, if there is room and nothing against it; return how many there are."""
    if n >= room:
        return n
    entry = find(entries.keys, entries.rows, item)
    if entry >= 0:
        if entries.item[entry]["available"] == 0:
            return n
    elif find(known.keys, known.rows, item) < 0:
        return n  # nobody knows its name
    for k in range(len(own)):
        if own[k]["item"] == item and own[k]["flags"] & unwanted != 0:
            return n
    mask = len(taken) - 1
    slot = np.int64(item & np.uint64(mask))
    while taken[slot] != 0:
        if taken[slot] == item:
            return n
        slot = (slot + 1) & mask
    taken[slot], out[n], source[n] = item, item, kind
    return n + 1
