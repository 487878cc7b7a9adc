"""Figures of predictions that were made before anything was learned of what they are about."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from models.batch import Array, per_list
from models.quality import log_loss, ranks

BINS = 20
"""Bins of predictions, equally many in each, in which calibration is looked at."""

PLACES = 20
"""Items of a slate that count."""


class Ranking(msgspec.Struct, frozen=True):
    """Order of the lists with a click: mean reciprocal rank of the best clicked item, NDCG@10."""

    lists: int
    mrr: float
    ndcg: float


class Probability(msgspec.Struct, frozen=True):
    """Of one task; `calibration` is positives predicted over positives seen; None where undefined."""

    predictions: int
    positives: int
    auc: float | None
    log_loss: float
    normalised_entropy: float | None
    calibration: float | None
    ece: float


class Hits(msgspec.Struct, frozen=True):
    """Of the next items asked about: share within the first 20, mean reciprocal place (0 beyond 20)."""

    asked: int
    hr: float
    mrr: float


def by_place(start: Array, value: Array) -> Array:
    """Scores that order lists by `value`, equal ones by their place: all different within a list.

    >>> by_place(np.array([0, 3]), np.array([0.0, 1.0, 1.0])).tolist()
    [-2.0, 0.0, -1.0]
    """
    size = np.diff(start)
    order = np.lexsort((np.arange(len(value)), -value, np.repeat(np.arange(len(size)), size)))
    score = np.empty(len(value))
    score[order] = np.repeat(start[:-1], size) - np.arange(len(value))
    return score


def clicked_lists(start: Array, labels: Array) -> Array:
    """Indexes (int64) of the lists of two items or more that have a click."""
    return np.flatnonzero((per_list(start, labels & 1) > 0) & (np.diff(start) > 1))


def judge_lists(start: Array, score: Array, labels: Array) -> tuple[Array, Array]:
    """Reciprocal rank and NDCG@10 (float64) of each of `clicked_lists`; ties get their average rank."""
    judged = ranks(start, score, labels)
    longer = np.diff(start)[judged.list] > 1
    return judged.reciprocal[longer], judged.ndcg[longer]


def ranking(reciprocal: Array, ndcg: Array) -> Ranking:
    """Means of `judge_lists`, of some of the lists."""
    return Ranking(len(reciprocal), _mean(reciprocal), _mean(ndcg))


def probability(p: Array, happened: Array) -> Probability:
    """Judge probabilities (float [n]) by what happened (bool [n]).

    Normalised entropy: log loss over that of always predicting the mean (He et al., ADKDD 2014). ECE:
    mean |predicted - observed| over `BINS` bins of equally many predictions (Naeini et al., AAAI 2015).

    Examples
    --------
    >>> figures = probability(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
    >>> figures.auc, round(figures.calibration, 2)
    (0.875, 0.85)
    """
    n, k = len(p), int(happened.sum())
    order = np.argsort(p, kind="stable")
    p, happened = p[order].astype(np.float64), happened[order]
    loss = float(log_loss(p, happened).sum())
    rate = k / n if n else 0.0
    entropy = -(k * math.log(rate) + (n - k) * math.log1p(-rate)) if 0 < k < n else 0.0
    return Probability(
        predictions=n,
        positives=k,
        auc=_auc(p, happened),
        log_loss=loss / max(n, 1),
        normalised_entropy=loss / entropy if entropy else None,
        calibration=float(p.sum()) / k if k else None,
        ece=_ece(p, happened),
    )


def hits(place: Array) -> Hits:
    """Judge places (from 1; 0: none).

    >>> hits(np.array([1, 0, 20, 21]))
    Hits(asked=4, hr=0.5, mrr=0.2625)
    """
    inside = (place > 0) & (place <= PLACES)
    return Hits(len(place), _mean(inside), _mean(inside / np.maximum(place, 1)))


def _auc(p: Array, happened: Array) -> float | None:
    """Chance that a positive is above a negative, where p ascends; equals count half (Mann-Whitney)."""
    k = int(happened.sum())
    if k in (0, len(p)):
        return None
    first = np.flatnonzero(np.append(True, p[1:] > p[:-1]))
    size = np.diff(np.append(first, len(p)))
    rank = first + (size + 1) / 2  # of all that are equal
    positives = np.add.reduceat(happened, first, dtype=np.int64)
    return float(((rank * positives).sum() - k * (k + 1) / 2) / (k * (len(p) - k)))


def _ece(p: Array, happened: Array) -> float:
    """The same of `probability`, where p ascends."""
    parts = min(BINS, max(len(p), 1))
    gaps = [
        abs(float(said.sum()) - float(came.sum()))
        for said, came in zip(np.array_split(p, parts), np.array_split(happened, parts), strict=True)
    ]
    return sum(gaps) / max(len(p), 1)


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else 0.0
