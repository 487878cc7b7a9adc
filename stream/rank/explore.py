"""Exploration: now and then one place of a slate goes to an item that is drawn, with known probability.

With probability epsilon a slate of K places is explored: one place, each alike probable, is emptied and
given an item drawn uniformly from its pool: the M best of the arm's ranking that stand at no other place. The
item that stood there is the best of them, so it may well come back. Any item of the pool thus stands at that
place, by exploration, in one of K |pool| / epsilon slates.
"""

from __future__ import annotations

import struct
from hashlib import blake2s
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.settings import Settings

Array = NDArray[Any]


class Draw(NamedTuple):
    """What to explore in one slate.

    Attributes
    ----------
    slot
        The place, from 0.
    pool : int64 [m]
        The ranks, from 0, that the item was drawn from, all alike probable; the first is `slot` itself.
    rank
        The one that was drawn.
    odds
        One in so many slates has this item at this place because it was drawn.
    """

    slot: int
    pool: Array
    rank: int
    odds: int


class Explorer:
    """Draws; what is drawn depends on the seed and the position of the event alone.

    Parameters
    ----------
    settings
        The whole tree.

    Attributes
    ----------
    ranked
        How many of the best are needed to draw from.
    epsilon : list[float]
        Probability of each arm, by code; strangers, who share one slate, are not explored with.
    """

    def __init__(self, settings: Settings) -> None:
        slate = settings.slate
        self._seed, self._size, self._top = slate.seed, slate.size, slate.explore_top
        self.ranked = slate.size + slate.explore_top - 1
        own = [slate.explore if arm.explore is None else arm.explore for arm in settings.arms]
        self.epsilon = [*own, 0.0]

    def draw(self, arm: int, partition: int, offset: int, ranked: int) -> Draw | None:
        """What to explore, if anything.

        Parameters
        ----------
        arm
            Code.
        partition, offset
            Of the event that the slate answers.
        ranked
            Items of the arm's ranking.
        """
        epsilon, places = self.epsilon[arm], min(self._size, ranked)
        if epsilon == 0 or ranked <= places:
            return None
        whether, where, what = _uniform(self._seed, partition, offset)
        if whether >= epsilon:
            return None
        slot = int(where * places)
        pool = np.concatenate([[slot], np.arange(places, min(ranked, places + self._top - 1))])
        return Draw(slot, pool, int(pool[int(what * len(pool))]), round(places * len(pool) / epsilon))


def chooses(ranking: Array, pool: Array, item: int) -> bool:
    """Whether the best item of a ranking (uint64 [*]) that is in the pool (uint64 [m]) is this one.

    >>> chooses(np.array([9, 7, 5]), np.array([5, 7]), 7), chooses(np.array([9]), np.array([5]), 5)
    (True, False)
    """
    there = np.flatnonzero(np.isin(ranking, pool))
    return len(there) > 0 and int(ranking[there[0]]) == item


def _uniform(seed: int, partition: int, offset: int) -> tuple[float, float, float]:
    """Three numbers from 0 to below 1.

    >>> _uniform(0, 1, 2) == _uniform(0, 1, 2) != _uniform(1, 1, 2)
    True
    """
    digest = blake2s(struct.pack("<qqq", seed, partition, offset), digest_size=24).digest()
    a, b, c = (int.from_bytes(digest[k : k + 8], "little") >> 11 for k in (0, 8, 16))
    return a / 2**53, b / 2**53, c / 2**53
