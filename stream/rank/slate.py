"""From visitors to slates: candidates, their features, scores, the best of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from models.batch import Array, F
from models.covisitation import Scratch
from models.table import find
from stream.rank.alike import Alike
from stream.rank.candidates import CART, RECENT, find_candidates
from stream.rank.catalogue import Entries
from stream.rank.features import write_age, write_features
from stream.rank.known import Known, Limits
from stream.rank.models import Slot
from stream.rank.visitors import Memory

USERS = 8
"""Visitors scored in one call: more would not be faster, and would wait for each other."""


class Offers(NamedTuple):
    """Candidates of a few visitors, ready to be scored; buffers are reused.

    Items of visitor u are ``start[u]:start[u + 1]``, in the order of their sources.
    """

    start: NDArray[Any]  # int64 [U + 1]
    item: NDArray[Any]  # uint64 [M]
    source: NDArray[Any]  # uint8 [M]
    row: NDArray[Any]  # int64 [M]
    category: NDArray[Any]  # uint16 [M]
    user: NDArray[Any]  # int64 [M]
    features: NDArray[Any]  # float32 [M, F]
    history_row: NDArray[Any]  # int64 [U, H]
    history_category: NDArray[Any]  # int64 [U, H]
    age: NDArray[Any]  # float32 [U, H]


class Best(NamedTuple):
    """The slate of one visitor: k items, best first."""

    item: NDArray[Any]  # uint64 [k]
    source: NDArray[Any]  # uint8 [k]
    score: NDArray[Any]  # float32 [k]
    p: NDArray[Any]  # float32 [k, T]


def offers(candidates: int, history: int) -> Offers:
    """Buffers for `USERS` visitors."""
    most = USERS * candidates
    return Offers(
        start=np.zeros(USERS + 1, np.int64),
        item=np.zeros(most, np.uint64),
        source=np.zeros(most, np.uint8),
        row=np.zeros(most, np.int64),
        category=np.zeros(most, np.uint16),
        user=np.zeros(most, np.int64),
        features=np.zeros((most, F), np.float32),
        history_row=np.zeros((USERS, history), np.int64),
        history_category=np.zeros((USERS, history), np.int64),
        age=np.zeros((USERS, history), np.float32),
    )


@numba.njit(cache=True)
def _row(known: Known, item: np.uint64) -> int:
    """Row of an item, or the cold row that it shares."""
    row = find(known.keys, known.rows, item)
    return int(row if row >= 0 else item % np.uint64(known.cold))


@numba.njit(cache=True)
def gather_offers(
    out: Offers,
    visitors: Array,
    now: Array,
    limit: int,
    personal: bool,
    trending: Array,
    newest: Array,
    alike: Alike,
    memory: Memory,
    known: Known,
    entries: Entries,
    limits: Limits,
    scratch: Scratch,
) -> None:
    """Find the candidates of each visitor (rows, int [U]) as of `now` (ms, int64 [U]); fill `out`.

    Where they are not `personal`, nothing will be scored, and features are left out.
    """
    foreign = len(visitors) < 0  # False, but not as a literal, which would be compiled apart
    for u in range(len(visitors)):
        v, first = visitors[u], out.start[u]
        own = memory.history[v]
        found = find_candidates(
            out.item[first : first + limit],
            out.source[first : first + limit],
            own,
            now[u],
            personal,
            trending,
            newest,
            alike,
            known,
            entries,
            limits.exclude_bought,
            scratch,
        )
        last = first + found
        out.start[u + 1] = last
        if not personal:
            continue
        out.user[first:last] = u
        prices = np.empty(found, np.float32)
        prices[:] = -1.0
        write_features(
            out.features[first:last],
            out.category[first:last],
            out.item[first:last],
            prices,
            foreign,
            v,
            now[u],
            memory,
            known,
            entries,
            limits,
            scratch,
        )
        for i in range(first, last):
            out.row[i] = _row(known, out.item[i])
        for k in range(out.history_row.shape[1]):
            out.history_row[u, k] = _row(known, own[k]["item"])
            out.history_category[u, k] = own[k]["category"]
        write_age(out.age[u], own, now[u])


def best_scored(out: Offers, users: int, slot: Slot, size: int) -> list[Best]:
    """Score the candidates of `users` visitors and keep the `size` best of each."""
    total = int(out.start[users])
    if slot.served is None or total == 0:
        return best_popular(out, users, size)
    score, p = slot.served.score(
        out.features[:total],
        out.row[:total],
        out.category[:total].astype(np.int64),
        out.user[:total],
        out.history_row[:users],
        out.history_category[:users],
        out.age[:users],
    )
    chosen = []
    for u in range(users):
        first, last = int(out.start[u]), int(out.start[u + 1])
        order = first + np.argsort(-score[first:last], kind="stable")[:size]
        chosen.append(Best(out.item[order], out.source[order], score[order], p[order]))
    return chosen


def best_popular(out: Offers, users: int, size: int) -> list[Best]:
    """Keep the first trending and new candidates: what is popular, without regard to the visitor."""
    chosen = []
    for u in range(users):
        first, last = int(out.start[u]), int(out.start[u + 1])
        source = out.source[first:last]
        order = first + np.flatnonzero((source != CART) & (source != RECENT))[:size]
        score = 1.0 / (1.0 + np.arange(len(order), dtype=np.float32))
        chosen.append(Best(out.item[order], out.source[order], score, np.zeros((len(order), 3), np.float32)))
    return chosen
