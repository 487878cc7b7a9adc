"""The interval of view `lift` in numpy, and visitors who click as they would in an experiment.

Shapes: S simulated experiments, M minutes (each a look), B user buckets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.rank.arms import BUCKETS

Array = NDArray[Any]

ALPHA, TIGHTEST, CHOICES = 0.05, 10_000, 1_000
MINUTES, PAGE = 60, 10


class Interval(NamedTuple):
    """Lower and upper end [S, M]; NaN where there is none yet."""

    low: Array
    high: Array

    def ever_misses(self, truth: float) -> float:
        """Share of the experiments in which at least one look excluded the truth."""
        return float(((self.low > truth) | (self.high < truth)).any(1).mean())

    def ever_excludes(self, value: float) -> Array:
        """Which experiments excluded a value at the last look, bool [S]."""
        return (self.low > value)[:, -1] | (self.high < value)[:, -1]


class Side(NamedTuple):
    """One arm: impressions [S, M], buckets [S, M], rate and relative standard error [S, M]."""

    n: Array
    buckets: Array
    rate: Array
    error: Array


def side(n: Array, c: Array) -> Side:
    """From cumulative impressions and clicks per bucket [S, M, B]."""
    total, buckets = n.sum(-1), (n > 0).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = c.sum(-1) / total
        spread = ((c - rate[..., None] * n) ** 2).sum(-1)
        return Side(total, buckets, rate, np.sqrt(buckets / (buckets - 1) * spread) / (total * rate))


def width(n: Array, buckets: Array, tightest: int = TIGHTEST) -> Array:
    """Standard errors that hold at every look; fewest near so many impressions."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = n * (-2 * math.log(ALPHA) + math.log(1 - 2 * math.log(ALPHA))) / tightest
        z = np.sqrt(2 * (t + 1) / t * np.log(np.sqrt(t + 1) / ALPHA))
        return z * (1 + (z * z + 1) / (4 * (buckets - 1)))


def of_rate(arm: Side, tightest: int = TIGHTEST) -> Interval:
    """As `ctr_low`, `ctr_high`; with `CHOICES` as those of view `choices`."""
    return _around(arm.rate, width(arm.n, arm.buckets, tightest) * arm.error)


def of_lift(arm: Side, against: Side, factor: Array | None = None) -> Interval:
    """As `lift_low`, `lift_high`; `factor` [S, M] puts another number of standard errors in its place."""
    if factor is None:
        factor = width(np.minimum(arm.n, against.n), np.minimum(arm.buckets, against.buckets))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = arm.rate / against.rate
    found = _around(ratio, factor * np.hypot(arm.error, against.error))
    return Interval(found.low - 1, found.high - 1)


def _around(value: Array, reach: Array) -> Interval:
    with np.errstate(over="ignore", invalid="ignore"):  # from very few visitors it reaches to infinity
        return Interval(value * np.exp(-reach), value * np.exp(reach))


@dataclass(frozen=True)
class Visitors:
    """Who visits one arm.

    Attributes
    ----------
    count
        Visitors present.
    rate
        Mean click rate.
    differ
        Standard deviation of the log of a visitor's click rate.
    pages
        Mean pages per visitor and minute; exponentially distributed over visitors.
    leave
        Others come each minute; else the same stay for the hour.
    """

    count: int
    rate: float
    differ: float = 0.7
    pages: float = 0.5
    leave: bool = False


def simulate(visitors: Visitors, experiments: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Cumulative impressions and clicks per bucket, [S, M, B]."""
    shape = experiments, visitors.count
    n, c = np.zeros((2, experiments, MINUTES, BUCKETS))
    for minute in range(MINUTES):
        if minute == 0 or visitors.leave:
            drawn = visitors.differ * rng.standard_normal(shape) - visitors.differ**2 / 2
            p = np.minimum(visitors.rate * np.exp(drawn), 1.0)
            busy = rng.exponential(visitors.pages, shape)
            bucket = np.arange(experiments)[:, None] * BUCKETS + rng.integers(0, BUCKETS, shape)
        shown = PAGE * rng.poisson(busy)
        clicked = rng.binomial(shown, p)
        for total, amount in ((n, shown), (c, clicked)):
            each = np.bincount(bucket.ravel(), amount.ravel(), experiments * BUCKETS)
            total[:, minute] = each.reshape(experiments, BUCKETS)
    return n.cumsum(1), c.cumsum(1)
