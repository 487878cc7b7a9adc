"""How much more or less is clicked, and carted, lately than the learned weights say: levels, in log-odds.

Dense weights learn mostly from what is replayed, and so say how much was clicked over all that time. And what
is shown was chosen because it looked good: on average it is not quite as good. Neither changes the order of
items; all probabilities are too high or too low for minutes. So their level follows, in small steps, what
came of predictions that nothing of it had influenced.

What share of the clicks leads to a cart moves with what is shown, too, and is known soon. Purchases come too
late to be followed; but where more is put into carts more is bought, so they share the level of carts. What
share of the carts is bought is counted where that is known, and changes slowly.
"""

from __future__ import annotations

import numpy as np

from models.batch import TASKS, Array

MEMORY = 200.0
"""Clicks or carts that a level is taken from, about: while nothing changes, its standard deviation is 5%."""

LONG_MEMORY = 2000.0
"""Carts that the share of those bought is taken from, about."""

CREDIT = 60.0
"""Carts for which the share that is predicted to be bought is believed."""

MOST = 1 - 1e-6
"""Largest probability: its odds are finite."""

CART, PURCHASE = TASKS.index("cart"), TASKS.index("purchase")


def follow(
    level: Array, said: Array, then: Array, due: Array, came: Array, sold: Array, expected_sold: Array
) -> Array:
    """Levels [T] after what came of some predictions.

    level += log (MEMORY + what came) / (MEMORY + what was to be expected)

    To expect is what would be predicted with the level of now: however late it is known what came, what was
    made up for since then is not made up for again. Purchases have the level of carts; where fewer carts than
    purchases are predicted, only as much of it as there are carts to explain them. To that comes

    log (CREDIT share + bought) / ((CREDIT + carts) share),  share: of carts, predicted to be bought

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
    sold : [2]
        Carts whose time to be bought is over, and those bought; lately.
    expected_sold : [2]
        Carts and purchases as they would be predicted without levels; lately.

    Examples
    --------
    >>> said, none = np.full((1000, 3), 0.1), np.zeros((1000, 3))
    >>> came, sold, expected_sold = np.array([50, 200, 0]), np.array([2000, 1000]), np.array([50, 25])
    >>> follow(np.zeros(3), said, none, none + 1, came, sold, expected_sold).round(3).tolist()
    [-0.182, 0.288, 0.288]
    """
    said = np.minimum(said, MOST)
    odds = said / (1 - said) * np.exp(level - then)
    expected = (due * odds / (1 + odds)).sum(0)
    after: Array = level + np.log((MEMORY + came) / (MEMORY + expected))
    carts, purchases = said[:, CART].sum(), said[:, PURCHASE].sum()
    after[PURCHASE] = after[CART] * (1.0 if carts >= purchases else carts / purchases)
    if expected_sold.all():
        share = expected_sold[1] / expected_sold[0]
        after[PURCHASE] += np.log((CREDIT * share + sold[1]) / ((CREDIT + sold[0]) * share))
    return after


def faded(sums: Array, news: Array, memory: float) -> Array:
    """Carts, and purchases, with news of both, as far as they are remembered.

    >>> faded(np.array([100.0, 50.0]), np.array([10.0, 4.0]), 100).tolist()
    [100.0, 49.0]
    """
    remembered: Array = sums * max(0.0, 1 - news[0] / memory) + news
    return remembered
