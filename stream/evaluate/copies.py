"""Versions that lag behind: taken over from the fresh one at some moments, and as they are in between.

A version is all that train publishes: weights and rows, and what it has counted, which features are made of.
A copy lacks the news of both, as a rank would that gets a version so seldom; what a visitor did just now it
knows, as every rank does. Nobody learns from its features. What it lacks is what freshness buys (Liu et al.,
Monolith, arXiv 2209.07663, table 2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from models.batch import Array, Lists
from stream.rank.models import Slot

Moments = Callable[[int], int | None]
"""From event time (ms) to a number: another number, another copy; None: the fresh model itself."""


def frozen(since: int) -> Moments:
    """The fresh model up to `since` (ms), and that one from then on.

    >>> [frozen(5)(now) for now in (4, 5, 100)]
    [None, 0, 0]
    """
    return lambda now: None if now < since else 0


def every(interval: int, since: int) -> Moments:
    """The fresh model up to `since` (ms), from then on a new copy each `interval` (ms).

    >>> [every(10, 5)(now) for now in (4, 5, 14, 15)]
    [None, 0, 0, 1]
    """
    return lambda now: None if now < since else (now - since) // interval


class Copy:
    """A slot of its own that is brought up to the fresh one when its moment has come.

    Parameters
    ----------
    moments
        When.

    Attributes
    ----------
    slot : Slot
        What the copy serves; None while it is the fresh one, or there is no model yet.
    features : dict[int, Array]
        Of lists shown lately, by their offset, as the copy makes them: float32 [n, F].
    """

    def __init__(self, moments: Moments) -> None:
        self._moments = moments
        self._moment: int | None = None
        self.slot: Slot | None = None
        self.features: dict[int, Array] = {}

    def follow(self, now: int, fresh: Slot) -> None:
        """Take the fresh model over if it is time (`now` in ms of event time)."""
        moment = self._moments(now)
        if moment is not None and moment != self._moment and fresh.served is not None:
            self.slot = fresh.copy(self.slot)
            self._moment = moment

    def given(self, lists: Lists, offset: Array) -> Lists:
        """Lists (their offsets: int64 [B]) with the copy's features, then forgotten, where it has any."""
        own = np.split(lists.features, lists.start[1:-1])
        features = [self.features.pop(o, each) for o, each in zip(offset.tolist(), own, strict=True)]
        return replace(lists, features=np.concatenate(features))
