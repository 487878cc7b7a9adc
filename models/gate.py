"""Whether a new version may be published: it must not be clearly worse than the last good one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.batch import Array

ERRORS = 3.0
"""Standard errors by which the loss must be worse: one good version in about 700 is turned away."""

TOLERANCE, DEGREES = 0.05, 0.10
"""Shares by which a loss may rise within one version, and by degrees, in several: that of a model that learns
wanders by 1% from one version to the next, and by 3% within those that add up.
"""

CHANCE = float(np.log(700))
"""Nats by which all labels together must have become less likely; of a version that is right, one in 700 is
turned away (Markov's inequality). Standard errors alone are too strict where clicks are rare: on lists that
happen to have few, whatever expects more is worse by many.
"""

MEMORY = 0.95
"""Share of what accepted versions have cost that still counts one version later: about 20 of them add up."""


class Harm(NamedTuple):
    """What one version, or several in a row, made worse.

    Attributes
    ----------
    rise, variance
        Of the mean loss, and the variance of that.
    nats
        By which all labels together have become less likely.
    """

    rise: float = 0.0
    variance: float = 0.0
    nats: float = 0.0

    @property
    def certain(self) -> bool:
        """Whether it is no chance of which lists were looked at."""
        return bool(self.rise > ERRORS * self.variance**0.5)

    def much(self, tolerance: float) -> bool:
        """Whether it is certain, more than `tolerance`, and more than chance of what was clicked."""
        return bool(self.certain and self.rise > tolerance and self.nats > CHANCE)

    def faded(self) -> Harm:
        """What of it counts for the next version; none, once later versions have made up for it."""
        if not self.rise > 0:
            return NOTHING
        return Harm(MEMORY * self.rise, MEMORY**2 * self.variance, MEMORY * self.nats)


NOTHING = Harm()
"""What is owed at first."""


class Verdict(NamedTuple):
    """What the gate decided, and why.

    Attributes
    ----------
    accepted
        Whether it may be published.
    reason
        ``better or alike`` | ``worse`` (may be little) | ``worse by degrees`` | ``not finite``.
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


def judge(before: Array, after: Array, labels: Array, owed: Harm = NOTHING) -> tuple[Verdict, Harm]:
    """Compare losses of the last good version and of a candidate on the same examples.

    Rejected when any loss after is not finite, or when it is worse and that is

    - more than 3 standard errors, s / sqrt(n), s being the standard deviation of the paired differences,
    - more than `TOLERANCE`, or with what is owed more than `DEGREES`, and more than may be `CHANCE`.

    Of fewer than two pairs of finite losses nothing else speaks against it.

    Parameters
    ----------
    before, after : float [n]
    labels : int [n]
        How many labels each loss is the mean of.
    owed
        What versions before it made worse, as far as it counts.

    Returns
    -------
    tuple
        The verdict, and what is owed when it is accepted.

    Raises
    ------
    ValueError
        When they are not paired.

    Examples
    --------
    >>> before, labels = np.array([0.1, 0.3, 0.2]), np.array([20, 20, 20])
    >>> judge(before, before + [0.4, 0.5, 0.4], labels)[0].reason
    'worse'
    >>> verdict, owed = judge(before, before + [0.004, 0.005, 0.004], labels)
    >>> verdict.accepted, round(owed.rise, 4)
    (True, 0.0043)
    """
    if before.shape != after.shape:
        raise ValueError(f"losses are not paired: {before.shape} before, {after.shape} after")
    if not len(before):
        return Verdict(True, "better or alike", 0.0, 0.0, 0.0), owed
    means = float(before.mean()), float(after.mean())
    if not np.isfinite(after).all():
        return Verdict(False, "not finite", *means, float("nan")), owed
    # a good version that is not finite here gives nothing to compare with
    paired = np.isfinite(before)
    rise = after[paired] - before[paired]
    if len(rise) < 2:
        return Verdict(True, "better or alike", *means, 0.0), owed
    variance = float(rise.var(ddof=1)) / len(rise)
    alone = Harm(float(rise.mean()), variance, float(labels[paired] @ rise))
    harm = Harm(*(one + more for one, more in zip(alone, owed, strict=True)))
    loss = before[paired].mean()
    if not alone.rise > 0 or not (alone.certain or harm.certain):
        return Verdict(True, "better or alike", *means, variance**0.5), harm
    refused = alone.much(TOLERANCE * loss), harm.much(DEGREES * loss)
    reason = "worse" if refused[0] or not owed.rise else "worse by degrees"
    return Verdict(not any(refused), reason, *means, variance**0.5), harm
