"""How much more or less is clicked, and carted, lately than the learned weights say: levels, in log-odds.

Dense weights learn mostly from what is replayed, and so say how much was clicked over all that time. And what
is shown was chosen because it looked good: on average it is not quite as good. Neither changes the order of
items; all probabilities are too high or too low for minutes. So their level follows, in small steps, what
came of predictions that nothing of it had influenced.

What share of the clicks leads to a cart moves with what is shown, too, and is known soon. Purchases come too
late to be followed; but where more is put into carts more is bought, so they share the level of carts, or of
clicks where most of what is bought was in no cart. What share of these is bought is counted where that is
known, and changes slowly.
"""

from __future__ import annotations

import numpy as np

from models.batch import Array
from models.statistics import CART, CLICK, PURCHASE

MEMORY = 200.0
"""Clicks or carts that a level is taken from, about: while nothing changes, its standard deviation is 5%."""

LONG_MEMORY = 2000.0
"""Purchases that the share of clicks or carts that are bought is taken from, about."""

CREDIT = 50.0
"""Purchases for which the share that is predicted to be bought is believed."""

MOST = 1 - 1e-6
"""Largest probability: its odds are finite."""


def follow(
    level: Array, said: Array, then: Array, due: Array, came: Array, sold: Array, expected: Array
) -> Array:
    """Levels [T] after what came of some predictions.

    level += log (MEMORY + what came) / (MEMORY + what was to be expected)

    To expect is what would be predicted with the level of now: however late it is known what came, what was
    made up for since then is not made up for again. Purchases have the level of carts where most of those
    that are known of had been carts, else that of clicks. To that comes

    log (CREDIT + bought) / (CREDIT + so many of them share),  share: predicted to be bought

    Parameters
    ----------
    level : [T]
        Of now.
    said, then : float [N, T]
        Probabilities as they were predicted, and the levels in these.
    due : int [N, 1]
        1 for what is to be expected from now on, else 0.
    came : int [T]
        How often each task happened; late carts are of what was due before.
    sold : [2, 2]
        Clicks, and carts, whose time to be bought is over, and how many of them were; lately.
    expected : [T]
        What would be predicted without levels; lately.

    Examples
    --------
    >>> said, none = np.full((1000, 3), 0.1), np.zeros((1000, 3))
    >>> came, expected = np.array([50, 200, 0]), np.array([80, 50, 25])
    >>> for sold in ([[3200, 1000], [2000, 1000]], [[3200, 1000], [0, 0]]):  # in a cart first, or without
    ...     follow(np.zeros(3), said, none, none + 1, came, np.array(sold), expected).round(3).tolist()
    [-0.182, 0.288, 0.288]
    [-0.182, 0.288, -0.182]
    """
    said = np.minimum(said, MOST)
    odds = said / (1 - said) * np.exp(level - then)
    to_come = (due * odds / (1 + odds)).sum(0)
    after: Array = level + np.log((MEMORY + came) / (MEMORY + to_come))
    before = CART if 2 * sold[CART, 1] > sold[CLICK, 1] else CLICK
    after[PURCHASE] = after[before]
    if expected[before] > 0:
        count, bought = sold[before]
        share = expected[PURCHASE] / expected[before]
        after[PURCHASE] += np.log((CREDIT + bought) / (CREDIT + count * share))
    return after


def faded(sums: Array, news: Array, memory: float) -> Array:
    """Sums and news of them, as far as they are remembered; the last of each says how much is forgotten.

    >>> faded(np.array([50.0, 100.0]), np.array([4.0, 10.0]), 100).tolist()
    [49.0, 100.0]
    """
    remembered: Array = sums * np.maximum(0.0, 1 - news[..., -1:] / memory) + news
    return remembered
