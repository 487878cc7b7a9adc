"""What a visitor touches next: where it stood among the items that rank would have recommended just before.

An act counts whose user has a history that does not hold the item, and whose number among all acts of the
stream is a multiple of `EVERY`. Items that the user has touched before are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from models.batch import Array
from stream.evaluate.baselines import Top
from stream.evaluate.copies import Copy
from stream.evaluate.watch import Joined, Moment
from stream.rank.candidates import SOURCES

EVERY = 10
RECALLED = 200
"""Candidates whose recall is told."""

ALL, NEAR_ALONE, TRENDING_ALONE = "all together", "near alone", "trending alone"

AS_PUBLISHED = "as published"
"""The fresh model's slate with all that is in it, also what the user has touched before."""


class Placed(NamedTuple):
    """What became of each act asked about, columns [M].

    Attributes
    ----------
    number, offset : int64
        Of the act among the acts, and of its event.
    places : dict[str, int64]
        By who recommends: place of the item, from 1; 0: not among them.
    recalled : dict[str, bool]
        Whether the candidates held the item: by the first source that offered it, in all, and where
        one source alone had all the places.
    """

    number: Array
    offset: Array
    places: dict[str, Array]
    recalled: dict[str, Array]


class Following:
    """Implements `watch.Audience`; `copies` are asked too."""

    def __init__(self, copies: Mapping[str, Copy], fresh: str) -> None:
        self._copies, self._fresh = copies, fresh
        self._seen: dict[int, set[int]] = {}
        self._top = Top(RECALLED)
        self._number: list[tuple[int, int]] = []
        self._places: dict[str, list[int]] = {}
        self._recalled: dict[str, list[bool]] = {}
        self.acts = 0

    def shown(self, offset: int, user: int, slate: int, items: list[int]) -> None:
        """Of no interest here."""

    def joined(self, labels: Joined) -> None:
        """Of no interest here."""

    def wants(self, user: int, item: int) -> bool:
        """Whether the act is one of those that count."""
        seen = self._seen.get(user)
        return seen is not None and self.acts % EVERY == 0 and item not in seen

    def ask(self, user: int, item: int, moment: Moment) -> None:
        """Note where the item stands for each of those who recommend."""
        seen = self._seen[user]
        best = moment.recommend(moment.fresh)
        order, near = best.item.tolist(), moment.near(RECALLED).tolist()
        ranked = {self._fresh: order}
        for name, copy in self._copies.items():
            ranked[name] = order if copy.slot is None else moment.recommend(copy.slot).item.tolist()
        ranked |= {"popularity": self._top.items, "co-visitation": near}
        self._number.append((self.acts, moment.offset))
        for name, items in ranked.items():
            self._places.setdefault(name, []).append(_place([x for x in items if x not in seen], item))
        self._places.setdefault(AS_PUBLISHED, []).append(_place(order, item))
        place = _place(order[:RECALLED], item)
        first = SOURCES[best.source[place - 1]] if place else ""
        found = {name: name == first for name in SOURCES}
        found |= {ALL: place > 0, NEAR_ALONE: item in near, TRENDING_ALONE: item in _trending(moment)}
        for name, there in found.items():
            self._recalled.setdefault(name, []).append(there)

    def touched(self, user: int, item: int) -> None:
        """Count an act."""
        self.acts += 1
        seen = self._seen.setdefault(user, set())
        if item not in seen:
            seen.add(item)
            self._top.count(item)

    def placed(self) -> Placed:
        """All that was noted."""
        number, offset = np.array(self._number, np.int64).reshape(-1, 2).T
        return Placed(
            number,
            offset,
            {name: np.array(places, np.int64) for name, places in self._places.items()},
            {name: np.array(found, np.bool_) for name, found in self._recalled.items()},
        )


def _trending(moment: Moment) -> list[int]:
    ids: list[int] = moment.fresh.trending[:RECALLED].tolist()
    return ids


def _place(items: list[int], item: int) -> int:
    return items.index(item) + 1 if item in items else 0
