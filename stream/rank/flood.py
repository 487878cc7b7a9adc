"""Bots and floods: a visitor who sends more than people can do is not listened to for as long as it lasts."""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from models.batch import Array
from stream.rank.decode import Columns, pick

MEMORY_MS = 20_000.0
"""How long events of a visitor are held against it: a page that is opened may bring many at once."""


class Capped(NamedTuple):
    """Events to take in, the rows (int32 [n]) of their visitors, and indices of the records left out."""

    columns: Columns
    rows: Array
    left_out: Array


def cap(columns: Columns, rows: Array, visitor: Array, most: float) -> Capped:
    """Leave out what is part of a flood; parameters as those of `sift`."""
    taken = np.empty(len(rows), np.bool_)
    if not sift(visitor, rows, columns.ts, most, taken):
        return Capped(columns, rows, np.zeros(0, np.int64))
    return Capped(pick(columns, np.flatnonzero(taken)), rows[taken], columns.record[~taken])


@numba.njit(cache=True)
def sift(visitor: Array, rows: Array, ts: Array, most: float, taken: Array) -> int:
    """Find the events of visitors who have sent no more than `most` lately.

    Each event adds one to its visitor's burst, which fades in event time by exp(-t / 20 s). What is turned
    away adds to it too: it takes a pause to be listened to again, not a luckier moment.

    Parameters
    ----------
    visitor : VISITOR [U]
        Fields ``burst`` and ``burst_ts`` are kept here.
    rows, ts : int32, int64 [n]
        Visitor and event time (ms) of each event, in order.
    most
        Rate (1/s) times `MEMORY_MS` in s.
    taken : bool [n]
        Written: whether the event is taken in.

    Returns
    -------
    int
        How many are not.
    """
    capped = 0
    for i in range(len(rows)):
        one = visitor[rows[i]]
        away = ts[i] - one["burst_ts"]
        if away > 0:
            one["burst"] *= math.exp(-away / MEMORY_MS)
            one["burst_ts"] = ts[i]
        one["burst"] += 1.0
        taken[i] = one["burst"] <= most
        capped += not taken[i]
    return capped
