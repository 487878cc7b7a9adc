"""How much more or less is clicked, and carted, lately than the learned weights say: levels, in log-odds.

Dense weights learn mostly from what is replayed, and so say how much was clicked over all that time. And what
is shown was chosen because it looked good: on average it is not quite as good. Neither changes the order of
items; all probabilities are too high or too low for minutes. So their level follows, in small steps, what
came of predictions that nothing of it had influenced.

What share of the clicks leads to a cart moves with what is shown, too, and is known soon. Purchases come too
late to be followed; but where more is put into carts more is bought, so they share the level of carts.
"""

from __future__ import annotations

import numpy as np

from models.batch import TASKS, Array

MEMORY = 200.0
"""Clicks or carts that a level is taken from, about: while nothing changes, its standard deviation is 5%."""

MOST = 1 - 1e-6
"""Largest probability: its odds are finite."""

CART, PURCHASE = TASKS.index("cart"), TASKS.index("purchase")


def follow(level: Array, said: Array, then: Array, due: Array, came: Array) -> Array:
    """Levels [T] after what came of some predictions.

    level += log (MEMORY + what came) / (MEMORY + what was to be expected)

    To expect is what would be predicted with the level of now: however late it is known what came, what was
    made up for since then is not made up for again. Purchases have the level of carts; where fewer carts than
    purchases are predicted, only as much of it as there are carts to explain them.

    Parameters
    ----------
    level : [T]
        Of now.
    said, then : float [N, T]
        Probabilities as they were predicted, and the levels in these.
    due : int [N, T]
        1 for what is to be expected from now on, else 0.
    came : int [T]
        How often each task happened; late carts are of what was due before.

    Examples
    --------
    >>> said, then = np.full((1000, 3), 0.1), np.zeros((1000, 3))
    >>> follow(np.zeros(3), said, then, np.ones((1000, 3)), np.array([50, 200, 0])).round(3).tolist()
    [-0.182, 0.288, 0.288]
    """
    said = np.minimum(said, MOST)
    odds = said / (1 - said) * np.exp(level - then)
    expected = (due * odds / (1 + odds)).sum(0)
    after: Array = level + np.log((MEMORY + came) / (MEMORY + expected))
    carts, purchases = said[:, CART].sum(), said[:, PURCHASE].sum()
    after[PURCHASE] = after[CART] * (1.0 if carts >= purchases else carts / purchases)
    return after
