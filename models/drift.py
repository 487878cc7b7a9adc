"""Whether a figure that is noisy, such as a loss, is still on its level."""

from __future__ import annotations

import math

import numpy as np

from models.batch import Array

ALLOWED = 0.5
"""Standard deviations by which a figure may be off its level and count as on it."""

LIMIT = 10.0
"""Standard deviations of excess, summed, that are a change: on a level, about one in 50,000 figures."""

KNOWN = 32
"""Figures that a level is first taken from."""

SUDDEN = 8
"""Figures within which a rise must be clear that came at once: on average 1.75 standard deviations each."""

MEMORY = 1000
"""Figures that a level is the mean of at most: who drifts slowly leaves it all the same."""


class Level:
    """Says when a figure leaves its level, upwards or downwards; the new level is then learned anew.

    With z the figure's distance from the level in standard deviations (Page, Biometrika 1954), which are
    the smaller the more a figure is the mean of::

        up <- max(0, up + z - ALLOWED),   down <- max(0, down - z - ALLOWED),   a change at LIMIT

    Attributes
    ----------
    sudden : bool
        Whether the last rise came at once, within `SUDDEN` figures, and not by drifting.

    Examples
    --------
    >>> level, noise = Level(), np.random.default_rng(0)
    >>> [level.add(x) for x in noise.normal(1, 0.1, 300).tolist()] == 300 * [0]
    True
    >>> [level.add(x) for x in noise.normal(1.3, 0.1, 5).tolist()]
    [0, 0, 0, 0, 1]
    """

    def __init__(self) -> None:
        self.sudden = False
        self._count = self._size = self._mean = self._variance = self._up = self._down = self._rising = 0.0

    def add(self, figure: float, size: float = 1.0) -> int:
        """Take in the mean of `size`: 1 when it is clear that figures have risen, -1 fallen, else 0."""
        if self._count >= KNOWN:
            z = (figure - self._mean) / math.sqrt(self._variance / size + 1e-12)
            self._up = max(0.0, self._up + z - ALLOWED)
            self._down = max(0.0, self._down - z - ALLOWED)
            self._rising = self._rising + 1 if self._up else 0.0
            if max(self._up, self._down) > LIMIT:
                change = 1 if self._up > LIMIT else -1
                self.sudden = self._rising <= SUDDEN
                self._forget()
                return change
        self._size = min(1.0, MEMORY / (self._count + 1)) * self._size + size
        self._count = min(self._count + 1, MEMORY)
        off = figure - self._mean
        self._mean += off * size / self._size
        self._variance += (size * off * (figure - self._mean) - self._variance) / self._count
        return 0

    def state(self) -> Array:
        """Everything `load_state` needs, float64 [7]."""
        level = self._count, self._size, self._mean, self._variance
        return np.array([*level, self._up, self._down, self._rising])

    def load_state(self, state: Array) -> None:
        """Go on from `state`."""
        self._count, self._size, self._mean, self._variance, *rising = state.tolist()
        self._up, self._down, self._rising = rising

    def _forget(self) -> None:
        self.load_state(np.zeros(7))
