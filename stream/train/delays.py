"""How long after their lists carts and purchases come, as far as that can be known while the stream is young.

When the first lists have just been shown none of their sales has come. Whoever takes that for an answer
predicts too few for several times as long as sales take. So until the stream is as old as the wait for them

- fewer impressions teach fake negatives, which the sales of lists shown before make up for
  (`models.losses`): as many as have had their sales, on average, sum over impressions of w F(age). F(d) is
  the share of the sales that come within d; w is 1 for what was clicked and little for what was not: only
  clicks are sold, and fewer are at first. (Lists set aside later count, too.) Every sale is taught as ever;
- of the carts on lists of an age, F(age) have been sold, or never will be (`models.lately`).

Of sales that take longer than the stream is old nobody has seen one: the tail of F is taken to be exponential
(Chapelle, KDD 2014), and to end with the wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.batch import CLICK, CONVERSIONS, TASKS, Array, Lesson

BINS = 100
"""Parts of the wait in which impressions and delays are counted."""

MEANS = np.geomspace(1e-3, 1 / 3, 60)
"""Mean delays that are thought possible, in waits; with the longest, one sale in 20 comes after the wait."""

BELIEF = 100
"""Delays to be heard of before the longest is believed no more."""

FEW = 30.0
"""Clicks as old as a delay or older: of fewer, one sale would weigh too much."""

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, are spread evenly wherever one begins (Weyl)."""

UNCLICKED = 0.02
"""What an impression without a click is worth, in clicks."""


class Delays:
    """Impressions, and delays of what came of them, in the first `wait_s` of a stream.

    Parameters
    ----------
    wait_s
        After so long no cart and no purchase comes any more.

    Examples
    --------
    >>> delays, number, none = Delays(wait_s=600), np.arange(1000), np.zeros(1000, np.uint8)
    >>> for s in (0, 100, 200, 300, 600):  # a thousand items are shown: no click, and no purchase so far
    ...     lesson, shown = Lesson(none, none + 0b111), np.full(1000, 1000 * s)
    ...     taught = delays.thin(lesson, number, shown, 1000 * s).negative
    ...     print((taught & 0b001 > 0).sum(), (taught & 0b100 > 0).sum())
    1000 16
    1000 410
    1000 656
    1000 826
    1000 1000
    """

    def __init__(self, wait_s: float) -> None:
        self._wait = 1000 * wait_s
        self._first = -1
        self._worth = np.zeros(BINS)
        self._taught, self._late = np.zeros(len(TASKS)), np.zeros((len(TASKS), BINS))

    def heard(self, tasks: Array, delays_ms: Array) -> None:
        """What happened, and how long after its list was shown, int64 [n]."""
        bins = self._bins(delays_ms)
        np.add.at(self._late, (tasks[bins < BINS], bins[bins < BINS]), 1)

    def thin(self, lesson: Lesson, number: Array, ts_ms: Array, now_ms: int) -> Lesson:
        """Without those of its negatives of carts and purchases for which it is too early.

        Parameters
        ----------
        lesson
            As the lists teach it; it stays as it is.
        number, ts_ms : int64 [N]
            Of each item's list: its number, and when it was shown. Lists are left out evenly, by number.
        now_ms
            Stream time.
        """
        waited = (lesson.positive | lesson.negative) & CLICK > 0
        if not waited.any():
            return lesson
        if self._first < 0:
            self._first = int(ts_ms[waited].min())
        if self.over(now_ms):
            return lesson
        worth = waited * np.where(lesson.positive & CLICK > 0, 1, UNCLICKED)
        self._worth += np.bincount(np.minimum(self._bins(ts_ms - self._first), BINS - 1), worth, BINS)
        total, negative = worth.sum(), lesson.negative.copy()
        order = number * GOLDEN % 1
        middles = self._first + (np.arange(BINS) + 0.5) * self._wait / BINS
        for task, mature in enumerate(self.come(middles, now_ms) @ self._worth):
            if CONVERSIONS >> task & 1:
                share = min(1.0, max(0.0, mature - self._taught[task]) / total)
                self._taught[task] += share * total
                negative &= ~((order >= share).astype(np.uint8) << task)
        return lesson._replace(negative=negative)

    def over(self, now_ms: int) -> bool:
        """Whether there are lists whose wait is over: then nothing here is of use any more."""
        return self._first >= 0 and now_ms - self._first >= self._wait

    def young(self, now_ms: int) -> bool:
        """Whether lists have been seen, but none whose wait is over."""
        return self._first >= 0 and not self.over(now_ms)

    def left(self, now_ms: int) -> float:
        """Share of the lists of a stream's first wait whose own wait is not over."""
        return min(1.0, max(0.0, 2 - (now_ms - self._first) / self._wait)) if self._first >= 0 else 1.0

    def come(self, ts_ms: Array, now_ms: int) -> Array:
        """Share of what comes of lists shown at `ts_ms` [n] that has come, in a `young` stream [T, n].

        Where n_d acts came after d, and impressions worth w_d are as old or older, n_d / w_d come after d of
        each (Lagakos et al., Biometrika 1988). To that come a prior, and the tail.
        """
        bins = 1 + int(self._bins(now_ms - self._first))
        age, span = (np.arange(bins) + 0.5) / BINS, bins / BINS
        older = np.maximum(np.cumsum(self._worth[:bins])[::-1], FEW)
        prior = np.exp(-age / MEANS[-1])
        comes = self._late[:, :bins] / older + BELIEF * prior / (older @ prior)
        comes /= comes.sum(1, keepdims=True)
        mean = np.interp(comes @ age, MEANS - span / np.expm1(np.minimum(span / MEANS, 700)), MEANS)
        known = np.expm1(-span / mean) / np.expm1(-1 / mean)
        by_age = known[:, None] * (np.cumsum(comes, 1) - comes / 2)
        share: Array = by_age[:, np.minimum(self._bins(now_ms - ts_ms), bins - 1)]
        return share

    def _bins(self, ms: Array | int) -> Array:
        bins: Array = np.maximum(np.asarray(ms) * BINS / self._wait, 0).astype(np.int64)
        return bins

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {
            "wait": self._wait, "first": self._first,
            "worth": self._worth, "late": self._late, "taught": self._taught,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, with the wait there."""
        self._wait, self._first, self._worth = state["wait"], state["first"], state["worth"].copy()
        self._late, self._taught = state["late"].copy(), state["taught"].copy()
