"""Kernels of pair counting: what train does for `models.covisitation`, whose equations they follow.

Per row of the item table: M counters (``pairs`` the other item's id, ``weights`` [M, 3]), ``mass`` (faded
acts), all as of the fixed time ``base``; ``last`` is the newest event.
"""

from __future__ import annotations

import numba
import numpy as np

from models.amounts import to_byte
from models.batch import Array
from models.statistics import decayed
from models.table import EMPTY, find

NEAR, NEXT, OFTEN = range(3)
"""What a pair is counted by: how near in time; that, where the other came after; met at all."""


@numba.njit(cache=True)
def _forward(base: Array, mass: Array, weights: Array, row: int, ts: int, half_life: float) -> float:
    """What an event of `ts` adds to a row whose counts are as of ``base[row]``.

    Counts of one row are kept as of one fixed time, so that nothing is touched as they fade; new
    events weigh ever more, until the base moves on.
    """
    if base[row] == 0:
        base[row] = ts
    halvings = (ts - base[row]) / (1000.0 * half_life)
    if halvings > 32.0:
        fade = 2.0**-halvings
        mass[row] *= fade
        for m in range(weights.shape[1]):
            for w in range(weights.shape[2]):
                weights[row, m, w] *= fade
        base[row], halvings = ts, 0.0
    return float(2.0**halvings)


@numba.njit(cache=True)
def _add(
    pairs: Array, weights: Array, row: int, other: np.uint64, near: float, after: float, often: float
) -> None:
    """Add to one pair; a new one takes a free counter, or that of the lightest pair."""
    counter, least = 0, np.inf
    for m in range(pairs.shape[1]):
        if pairs[row, m] == other:
            counter = m
            break
        if weights[row, m, NEAR] < least:
            counter, least = m, weights[row, m, NEAR]
    if pairs[row, counter] != other:
        pairs[row, counter] = other
        weights[row, counter] = 0.0
    weights[row, counter, NEAR] += near
    weights[row, counter, NEXT] += after
    weights[row, counter, OFTEN] += often


@numba.njit(cache=True, inline="always")
def repeated(history: Array, h: int) -> bool:
    """Whether entry `h` of a history (newest first) is in it by a newer act already."""
    k = 0
    while history[k] != history[h]:
        k += 1
    return k < h


@numba.njit(cache=True)
def count_pairs(
    items: Array, ts: Array, history: Array, age: Array, keys: Array, rows: Array,
    pairs: Array, weights: Array, mass: Array, base: Array, last: Array, stale: Array,
    pair_half_life: float, half_life: float,
) -> None:  # fmt: skip
    """Count each act against its visitor's history, both ways; `stale` marks the rows changed."""
    for i in range(len(items)):
        row = find(keys, rows, items[i])
        if row < 0:
            continue
        mine = _forward(base, mass, weights, row, ts[i], half_life)
        mass[row] += mine
        last[row] = max(last[row], ts[i])
        stale[row] = True
        for h in range(history.shape[1]):
            other = history[i, h]
            if other == EMPTY or other == items[i] or repeated(history[i], h):
                continue
            to = find(keys, rows, other)
            if to < 0:
                continue
            weight = decayed(1000.0 * age[i, h], pair_half_life) / (1.0 + h)
            theirs = _forward(base, mass, weights, to, ts[i], half_life)
            _add(pairs, weights, row, other, weight * mine, 0.0, mine)
            _add(pairs, weights, to, items[i], weight * theirs, weight * theirs, theirs)
            last[to] = max(last[to], ts[i])
            stale[to] = True


@numba.njit(cache=True)
def publish_pairs(
    targets: Array, keys: Array, rows: Array, pairs: Array, weights: Array, mass: Array, base: Array,
    last: Array, near: Array, near_next: Array, near_often: Array, near_at: Array, half_life: float,
    alpha: float,
) -> Array:  # fmt: skip
    """Write the heaviest pairs of the rows `targets`, popularity divided out, heaviest first.

    Returns their weights (float32 [targets, K]): kernels know no float16.
    """
    score = np.empty(pairs.shape[1])
    near_weight = np.empty((len(targets), near.shape[1]), np.float32)
    for i in range(len(targets)):
        row = targets[i]
        fade = 2.0 ** ((base[row] - last[row]) / (1000.0 * half_life))
        for m in range(len(score)):
            other = -1 if pairs[row, m] == EMPTY else find(keys, rows, pairs[row, m])
            score[m] = 0.0
            if other >= 0:
                # both popularities as of this row's newest event
                theirs = mass[other] * 2.0 ** ((base[other] - last[row]) / (1000.0 * half_life))
                both = max(mass[row] * fade, 1.0) * max(theirs, 1.0)
                score[m] = weights[row, m, NEAR] * fade / both**alpha
        order = np.argsort(-score, kind="mergesort")
        for k in range(near.shape[1]):
            m = order[k]
            there = score[m] > 0.0
            near[row, k] = pairs[row, m] if there else EMPTY
            near_weight[i, k] = score[m]
            near_next[row, k] = to_byte(weights[row, m, NEXT] * fade) if there else 0
            near_often[row, k] = to_byte(weights[row, m, OFTEN] * fade) if there else 0
        near_at[row] = last[row]
    return near_weight
