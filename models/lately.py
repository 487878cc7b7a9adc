"""How much more or less is clicked lately than the learned weights say: a level, in log-odds.

Dense weights learn mostly from what is replayed, and so say how much was clicked over all that time. And what
is shown was chosen because it looked good: on average it is not quite as good. Neither changes the order of
items; all probabilities are too high or too low for minutes. So their level follows, in small steps, what
came of predictions that nothing of it had influenced. Carts and purchases, given a click, need no level of
their own: how often they come does not change so fast, and they come too late to follow it.
"""

from __future__ import annotations

import numpy as np

from models.batch import Array

MEMORY = 200.0
"""Clicks that the level is taken from, about: while nothing changes, its standard deviation is 5%."""

MOST = 1 - 1e-6
"""Largest probability: its odds are finite."""


def follow(level: float, said: Array, then: Array, clicked: Array) -> float:
    """Level after what came of some predictions.

    level += log (MEMORY + clicks) / (MEMORY + clicks to expect)

    To expect is what would be predicted with the level of now: however late clicks are known, what was
    made up for since then is not made up for again.

    Parameters
    ----------
    level
        Of now.
    said : float [N]
        Probabilities of a click as they were predicted.
    then : float [N]
        The level in these.
    clicked : bool [N]

    Examples
    --------
    >>> round(follow(0.0, np.full(1000, 0.1), np.zeros(1000), np.arange(1000) < 50), 3)
    -0.182
    """
    said = np.minimum(said, MOST)
    odds = said / (1 - said) * np.exp(level - then)
    expected = float((odds / (1 + odds)).sum())
    return level + float(np.log((MEMORY + clicked.sum()) / (MEMORY + expected)))
