"""How good predictions were, from sums that add up over time: prequential, each before its label was learned.

Probabilities are counted in bins of their log-odds, of which log loss, AUC, calibration and normalised
entropy follow for any window; order is judged per list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np

from models.batch import TASKS, Array, per_list

BINS_PER_UNIT = 8
"""Bins per unit of log-odds."""

LOWEST, HIGHEST = -80, 79
"""Bins of the most certain predictions (p = 0.00005 and less, or its opposite)."""

CERTAIN = 1e-7
"""Probabilities are clipped to this far from 0 and 1, so that no single loss is infinite."""


@dataclass(frozen=True)
class Histogram:
    """Predictions of one task by bin of their log-odds; only bins that hold some, ascending.

    Attributes
    ----------
    bin : int64 [k]
        floor(8 log-odds), clipped to -80..79.
    count, positives : int64 [k]
    predicted, loss : float64 [k]
        Sums of the probabilities, and of the log losses (nats).
    """

    bin: Array
    count: Array
    positives: Array
    predicted: Array
    loss: Array


def histogram(p: Array, y: Array) -> Histogram:
    """Count predictions.

    Parameters
    ----------
    p : float [n]
        Probabilities.
    y : bool [n]
        What happened.

    Examples
    --------
    >>> h = histogram(np.array([0.5, 0.5, 0.9]), np.array([True, False, True]))
    >>> h.bin.tolist(), h.count.tolist(), h.positives.tolist()
    ([0, 17], [2, 1], [1, 1])
    """
    return histograms(p, y, np.zeros(len(p), np.int64))[1]


def histograms(p: Array, y: Array, of: Array) -> tuple[Array, Histogram]:
    """Histograms of several groups of predictions, one after the other.

    Parameters
    ----------
    p, y
        As for `histogram`.
    of : int [n]
        Group of each prediction.

    Returns
    -------
    of : int [k]
        Group of each bin, ascending.
    Histogram

    Examples
    --------
    >>> of, h = histograms(np.array([0.5, 0.5, 0.9]), np.array([True, False, True]), np.array([7, 7, 3]))
    >>> of.tolist(), h.bin.tolist(), h.count.tolist()
    ([3, 7], [17, 0], [1, 2])
    """
    p, y = np.clip(p.astype(np.float64), CERTAIN, 1 - CERTAIN), y.astype(bool)
    bins = np.clip(np.floor(BINS_PER_UNIT * (np.log(p) - np.log1p(-p))), LOWEST, HIGHEST).astype(np.int64)
    length = HIGHEST - LOWEST + 1
    used, index, count = np.unique(of * length + bins - LOWEST, return_inverse=True, return_counts=True)
    columns = (y, p, log_loss(p, y))
    positives, predicted, loss = (np.bincount(index, c.astype(np.float64), len(used)) for c in columns)
    return used // length, Histogram(
        used % length + LOWEST, count, positives.astype(np.int64), predicted, loss
    )


def log_loss(p: Array, y: Array) -> Array:
    """-[y log p + (1 - y) log(1 - p)] of each prediction, float64."""
    p = np.clip(np.asarray(p, np.float64), CERTAIN, 1 - CERTAIN)
    return np.where(y, -np.log(p), -np.log1p(-p))


def auc(h: Histogram) -> float:
    """Chance that a positive is in a higher bin than a negative; one bin counts half. NaN if one-sided.

    >>> auc(histogram(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True])))
    0.875
    """
    negatives = h.count - h.positives
    below = np.cumsum(negatives) - negatives / 2
    pairs = float(h.positives.sum()) * float(negatives.sum())
    return float((h.positives * below).sum() / pairs) if pairs else float("nan")


def normalised_entropy(h: Histogram) -> float:
    """Log loss over that of always predicting the mean (He et al., 2014); NaN if one-sided.

    >>> round(normalised_entropy(histogram(np.full(4, 0.25), np.array([True, False, False, False]))), 6)
    1.0
    """
    n, k = float(h.count.sum()), float(h.positives.sum())
    if k in (0.0, n):
        return float("nan")
    return float(h.loss.sum() / -(k * np.log(k / n) + (n - k) * np.log1p(-k / n)))


def calibration(h: Histogram) -> float:
    """Positives predicted over positives seen; NaN without any."""
    k = float(h.positives.sum())
    return float(h.predicted.sum()) / k if k else float("nan")


class Ranks(NamedTuple):
    """Of each list with a click: its index (int64 [k]), reciprocal rank and NDCG@10 (float64 [k])."""

    list: Array
    reciprocal: Array
    ndcg: Array


def ranks(start: Array, score: Array, labels: Array) -> Ranks:
    """Judge the order of lists by where their clicked items are.

    rank = 1 + (others that score higher) + half of the items without a click that score the same, so that
    a constant score earns what a random order does on average. The reciprocal rank is that of the best
    clicked item; NDCG@10 = sum 1 / log2(1 + rank) over clicked items of rank 10 or less, divided by that
    of the best order (Järvelin and Kekäläinen, 2002). Scores that are not numbers come last.

    Parameters
    ----------
    start : int64 [B + 1]
        Where lists begin.
    score : float [N]
    labels : uint8 [N]
        Bit 0: clicked.

    Examples
    --------
    >>> ranks(np.array([0, 3]), np.array([0.9, 0.5, 0.1]), np.array([0, 1, 0], np.uint8)).reciprocal.tolist()
    [0.5]
    """
    clicked = (labels & 1).astype(np.int64)
    judged = np.flatnonzero(per_list(start, clicked))
    reciprocal, ndcg = np.empty(len(judged)), np.empty(len(judged))
    _judge(judged, start, np.nan_to_num(score, nan=-np.inf), clicked, reciprocal, ndcg)
    return Ranks(judged, reciprocal, ndcg)


@numba.njit(cache=True)
def _judge(judged: Array, start: Array, score: Array, clicked: Array, reciprocal: Array, ndcg: Array) -> None:
    for k in range(len(judged)):
        first, last = start[judged[k]], start[judged[k] + 1]
        best, gain, ideal, hits = 0.0, 0.0, 0.0, 0
        for i in range(first, last):
            if not clicked[i]:
                continue
            rank = 1.0
            for j in range(first, last):
                if score[j] > score[i] or (score[j] == score[i] and clicked[j] and j < i):
                    rank += 1
                elif score[j] == score[i] and not clicked[j]:
                    rank += 0.5
            best = max(best, 1 / rank)
            hits += 1
            if rank <= 10:
                gain += 1 / np.log2(1 + rank)
            if hits <= 10:
                ideal += 1 / np.log2(1 + hits)
        reciprocal[k], ndcg[k] = best, gain / ideal


def order_losses(start: Array, score: Array, labels: Array) -> Array:
    """Softmax loss of each list (float64 [B]), as `models.losses.listwise` has it; 0 without a click.

    Parameters
    ----------
    start : int64 [B + 1]
    score : float [N]
    labels : uint8 [N]
        Bit 0 set: clicked.

    Examples
    --------
    >>> order_losses(np.array([0, 2, 4]), np.zeros(4), np.array([1, 0, 0, 0])).round(4).tolist()
    [0.6931, 0.0]
    """
    clicked = (labels & 1).astype(np.float64)
    counted = np.append(0, np.cumsum(clicked))
    clicks = counted[start[1:]] - counted[start[:-1]]
    losses = np.zeros(len(start) - 1)
    with np.errstate(invalid="ignore"):  # what is not finite stays so, for the gate to see
        for b in np.flatnonzero(clicks):
            of = slice(start[b], start[b + 1])
            s = score[of].astype(np.float64)
            losses[b] = np.logaddexp.reduce(s) - (s * clicked[of]).sum() / clicks[b]
    return losses


def list_losses(start: Array, p: Array, labels: Array, tasks: Array) -> Array:
    """Log loss of each list (float64 [B]): mean over its items, summed over tasks; 0 for an empty list.

    What is not a number stays so, whether its task counts or not.

    Parameters
    ----------
    start : int64 [B + 1]
    p : float [N, T]
    labels : uint8 [N]
        Bit t set: task t happened.
    tasks : uint8 [B]
        Bit t set: task t of the list counts.
    """
    task = np.arange(len(TASKS), dtype=np.uint8)
    happened, counts = ((bits[:, None] >> task) & 1 for bits in (labels, np.repeat(tasks, np.diff(start))))
    total = np.append(0, np.cumsum((counts * log_loss(p, happened)).sum(1)))
    return np.diff(total[start]) / np.maximum(np.diff(start), 1)
