"""What is simple and hard to beat: counts in the order of events, independent of rank and train."""

from __future__ import annotations

import numpy as np

from models.batch import Array

RULES = ("displayed order", "popularity", "last touched first")
"""Of shown lists."""


class Rules:
    """Values of the items of a list by each of `RULES`: the higher, the better; equal ones as displayed.

    >>> rules = Rules()
    >>> for user, item in ((1, 7), (2, 8), (1, 8)):
    ...     rules.touched(user, item)
    >>> rules.values(2, [7, 8, 9]).tolist()
    [[0.0, 0.0, 0.0], [1.0, 2.0, 0.0], [0.0, 2.0, 0.0]]
    """

    def __init__(self) -> None:
        self._count: dict[int, int] = {}
        self._last: dict[int, dict[int, int]] = {}
        self._acts = 0

    def touched(self, user: int, item: int) -> None:
        """A visitor clicked, carted or bought."""
        self._acts += 1
        self._count[item] = self._count.get(item, 0) + 1
        self._last.setdefault(user, {})[item] = self._acts

    def values(self, user: int, items: list[int]) -> Array:
        """Float64 [rules, n], before anything is known of what the visitor does with the list."""
        last = self._last.get(user, {})
        count = self._count
        return np.array(
            [[0.0] * len(items), [count.get(x, 0) for x in items], [last.get(x, 0) for x in items]]
        )


class Top:
    """The `size` items counted most often, kept in order while they are counted; of equals, the first there.

    >>> top = Top(2)
    >>> for item in (7, 8, 9, 9, 8):
    ...     top.count(item)
    >>> top.items
    [9, 8]
    """

    def __init__(self, size: int) -> None:
        self.size, self.items = size, list[int]()
        self._count: dict[int, int] = {}
        self._place: dict[int, int] = {}

    def count(self, item: int) -> None:
        """Count one."""
        count = self._count
        count[item] = mine = count.get(item, 0) + 1
        place = self._place.get(item, -1)
        if place < 0:
            if len(self.items) < self.size:
                place = len(self.items)
                self.items.append(item)
            elif mine > count[self.items[-1]]:
                place = len(self.items) - 1
                del self._place[self.items[place]]
            else:
                return
        while place > 0 and mine > count[self.items[place - 1]]:
            self._put(place, self.items[place - 1])
            place -= 1
        self._put(place, item)

    def _put(self, place: int, item: int) -> None:
        self.items[place], self._place[item] = item, place
