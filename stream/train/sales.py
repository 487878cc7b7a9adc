"""How many clicks, and carts, are bought in the end, as far as it is known: levels of purchases follow it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.batch import TASKS, Array
from models.lately import LONG_MEMORY, MEMORY, faded
from models.statistics import CART, CLICK, PURCHASE
from stream.train.buffer import Buffer
from stream.train.delays import Delays


class Sales:
    """Counts of what has had its time to be bought, and of what was predicted of it.

    Parameters
    ----------
    buffer, delays
        The session's.
    delayed
        How late labels are learned: for ``naive`` nothing is counted.

    Attributes
    ----------
    expected : [T]
        What would be predicted without levels; lately.
    """

    def __init__(self, buffer: Buffer, delays: Delays, delayed: str) -> None:
        self._buffer, self._delays, self._counts = buffer, delays, delayed != "naive"
        self._known, self._foreseen, self.expected = np.zeros((2, 2)), np.zeros((2, 2)), np.zeros(len(TASKS))

    def sold(self, now_ms: int) -> Array:
        """Clicks, and carts; how many, and how many of them were bought; lately [2, 2].

        What is known of the first lists takes the place of what was foreseen of them.
        """
        sold: Array = self._known + self._delays.left(now_ms) * self._foreseen
        return sold

    def expect(self, predicted: Array) -> None:
        """So many clicks, carts and purchases [T] are to be expected."""
        self.expected = faded(self.expected, predicted, MEMORY)

    def mature(self, numbers: Array) -> None:
        """These lists have had their time: which of their items were bought is known."""
        news = np.array([[len(lists), bought.sum()] for lists, bought in self._before(numbers)])
        self._known = faded(self._known, news, LONG_MEMORY)

    def foresee(self, now_ms: int) -> None:
        """While no list is mature: of how many clicks and carts it may be known by now, by their age.

        They are no fewer than those that were bought.
        """
        for task, (lists, bought) in enumerate(self._before(np.arange(self._buffer.tail, self._buffer.head))):
            shown = self._buffer.column("broker_ts", lists)
            known = self._delays.come(shown, now_ms)[PURCHASE].sum()
            self._foreseen[task] = max(known, bought.sum()), bought.sum()

    def _before(self, numbers: Array) -> list[tuple[Array, Array]]:
        """Of each click, and of each cart, on these lists, the list's number, and whether it was bought."""
        out = self._buffer.column("unseen", numbers) | self._buffer.column("aside", numbers)
        numbers = numbers[~out] if self._counts else numbers[:0]
        labels, sizes = self._buffer.labels(numbers)
        lists, bought = np.repeat(numbers, sizes), labels >> PURCHASE & 1
        return [(lists[done], bought[done]) for done in (labels >> task & 1 > 0 for task in (CLICK, CART))]

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"known": self._known, "foreseen": self._foreseen, "expected": self.expected}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._known, self._foreseen = state["known"].copy(), state["foreseen"].copy()
        self.expected = state["expected"].copy()
