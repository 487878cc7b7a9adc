"""Examples for visitors who are shown nothing of ours: an act among what rank would have offered instead.

Where impressions are not published, an act still says which of the candidates was the right one. It
becomes a list that nobody saw: its item, and candidates drawn uniformly of the others, with features as
of just before. The softmax over such a sample needs each score less the log of the chance of being drawn
(logQ: Bengio and Senecal, 2008; Ma and Collins, arXiv 1809.01812); drawn uniformly, that is the same for
all of a list, and cancels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from models.batch import Array
from models.covisitation import Scratch
from stream.rank.alike import Alike
from stream.rank.candidates import find_candidates
from stream.rank.catalogue import Entries
from stream.rank.features import write_features
from stream.rank.given import DRAWN, Seen
from stream.rank.known import Known, Limits
from stream.rank.visitors import Memory, Record


class Pool(NamedTuple):
    """What candidates are taken from besides the history, and room for them."""

    trending: NDArray[Any]  # uint64, best first
    newest: NDArray[Any]  # uint64, best first
    alike: Alike
    item: NDArray[Any]  # uint64 [C]
    source: NDArray[Any]  # uint8 [C]


@numba.njit(cache=True)
def write_next(
    event: Record,
    seen: Seen,
    memory: Memory,
    known: Known,
    entries: Entries,
    limits: Limits,
    scratch: Scratch,
    pool: Pool,
) -> None:
    """Make a list of an act without one, if the item is new to the visitor and was a candidate.

    A visitor who was ever shown a list teaches by lists. The list is written behind those in
    ``seen.next``, the item first.
    """
    v, item, now = event["visitor"], event["item"], event["ts"]
    own = memory.history[v]
    if own[0]["item"] == 0 or memory.lists[v, 0]["start"] != 0:
        return
    for k in range(len(own)):
        if own[k]["item"] == item:
            return
    if not _within(memory.quota, now // 1000, limits.next_per_second):
        return
    personal = len(own) > 0  # True, but not as a literal, which would be compiled apart
    found = find_candidates(
        pool.item, pool.source, own, now, personal, pool.trending, pool.newest, pool.alike, known, entries,
        limits.exclude_bought, scratch,
    )  # fmt: skip
    size = _draw(pool.item[:found], item, event["offset"])
    if size < 2:
        return
    at = seen.next_count[0]
    seen.next_count[0] += 1
    drawn = seen.next_item[at, :size]
    for i in range(size):
        drawn[i] = pool.item[i]
    prices = np.empty(size, np.float32)
    prices[:] = -1.0
    foreign = len(own) < 0  # False, likewise
    write_features(
        seen.next_features[at, :size], seen.next_category[at, :size], drawn, prices, foreign, v, now, memory,
        known, entries, limits, scratch,
    )  # fmt: skip
    made = seen.next[at]
    made["offset"], made["size"], made["act"] = event["offset"], size, event["row"]
    for k in range(len(own)):
        seen.next_history_category[at, k] = own[k]["category"]


@numba.njit(cache=True)
def _within(quota: Array, second: int, limit: int) -> bool:
    """Take one of the `limit` lists of a second of event time; what is late counts in the newest second."""
    if second > quota[0]:
        quota[0], quota[1] = second, 0
    quota[1] += 1
    return bool(quota[1] <= limit)


@numba.njit(cache=True)
def _draw(items: Array, item: np.uint64, seed: int) -> int:
    """Move `item`, then a uniform sample of the others, to the front of `items`.

    Returns how many are there, up to `DRAWN`; 0 where `item` is not among them.
    """
    at = -1
    for i in range(len(items)):
        if items[i] == item:
            at = i
    if at < 0:
        return 0
    items[at], items[0] = items[0], items[at]
    size = min(len(items), DRAWN)
    state = np.uint64(seed)
    for i in range(1, size):
        # a linear congruential generator (Knuth's MMIX); its high bits are the random ones
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        k = i + np.int64((state >> np.uint64(33)) % np.uint64(len(items) - i))
        items[i], items[k] = items[k], items[i]
    return size
