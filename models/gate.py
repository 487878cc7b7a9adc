"""Whether a new version may be published: it must not be clearly worse than the last good one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.batch import Array

ERRORS = 3.0
"""Standard errors by which the loss must be worse: one good version in about 700 is turned away."""


class Verdict(NamedTuple):
    """What the gate decided, and why.

    Attributes
    ----------
    accepted
        Whether it may be published.
    reason
        ``better or alike`` | ``worse`` | ``worse by degrees`` | ``not finite``.
    before, after
        Mean losses.
    error
        Standard error of their difference.
    """

    accepted: bool
    reason: str
    before: float
    after: float
    error: float


def judge(before: Array, after: Array) -> Verdict:
    """Compare losses of the last good version and of a candidate on the same examples.

    Rejected when any loss after is not finite, or when mean(after - before) > 3 s / sqrt(n), s being the
    standard deviation of the paired differences. Without examples, or with one, nothing speaks against.

    Parameters
    ----------
    before, after : float [n]

    Raises
    ------
    ValueError
        When they are not paired.

    Examples
    --------
    >>> judge(np.array([0.1, 0.3, 0.2]), np.array([0.5, 0.8, 0.6])).reason
    'worse'
    """
    if before.shape != after.shape:
        raise ValueError(f"losses are not paired: {before.shape} before, {after.shape} after")
    n = len(before)
    if n == 0:
        return Verdict(True, "better or alike", 0.0, 0.0, 0.0)
    if not np.isfinite(after).all():
        return Verdict(False, "not finite", float(before.mean()), float(after.mean()), float("nan"))
    # a good version that is not finite here gives nothing to compare with
    paired = np.isfinite(before)
    difference = after[paired] - before[paired]
    error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else 0.0
    worse = len(difference) > 1 and float(difference.mean()) > ERRORS * error
    reason = "worse" if worse else "better or alike"
    return Verdict(not worse, reason, float(before.mean()), float(after.mean()), error)
