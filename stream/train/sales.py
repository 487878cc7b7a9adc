"""What share of the carts is bought, known soon after the first sale, though most carts are young then.

A young cart that is not bought yet may still be. So carts count for the ages at which they were watched, and
each bin of ages has its own chance: purchases over carts watched (life table; were the bins narrow it would
be the product limit of Kaplan and Meier, 1958). A bin that no cart has reached is taken to be like the one
before it. Each is twice as long as that one: nobody knows whether a shop's customers take seconds or hours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.batch import TASKS, Array
from models.lately import FEW, LONG_MEMORY

CART, PURCHASE = TASKS.index("cart"), TASKS.index("purchase")

KEPT = 1 - 1 / LONG_MEMORY
"""What is left of a cart's weight with each new one, whether it is open or not."""

MOST = 10 * int(LONG_MEMORY)
"""Carts that are open at a time: older ones would weigh nothing any more."""


class Sales:
    """Carts, until they are bought or their time is over.

    Parameters
    ----------
    wait_s
        Their time; what is bought later does not count.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._bin = np.arange(np.ceil(np.log2(1 + wait_s)))
        self._watched, self._bought = np.zeros((2, len(self._bin)))
        self._open: dict[tuple[int, int], tuple[int, int]] = {}
        self._carts = 0

    def saw(self, number: Array, position: Array, task: Array, ms: Array) -> None:
        """Carts, and what is bought of them, each by its list's number and its position there."""
        for n, k, t, at in zip(*(c.tolist() for c in (number, position, task, ms)), strict=True):
            if t == CART:
                self._carts += 1
                self._watched, self._bought = KEPT * self._watched, KEPT * self._bought
                self._open[n, k] = at, self._carts
                if len(self._open) > MOST:
                    self._close(next(iter(self._open)), at, False)
            elif t == PURCHASE and (n, k) in self._open:
                self._close((n, k), at, True)

    def sold(self, now: int) -> Array:
        """Carts, and how many of these are bought in their time; lately. Both are 0 until the first is."""
        for key in [key for key, (ms, _) in self._open.items() if now - ms >= 1000 * self._wait_s]:
            self._close(key, now, False)
        if not self._bought.any():
            return np.zeros(2)
        ms, cart = np.array([*self._open.values()], np.int64).reshape(-1, 2).T
        watched = self._watched + KEPT ** (self._carts - cart) @ self._ages(now - ms)
        chance, left = 0.0, 1.0
        for seen, bought in zip(watched.tolist(), self._bought.tolist(), strict=True):
            chance = (bought + FEW * chance) / (seen + FEW)
            left *= 1 - chance
        carts: Array = LONG_MEMORY * (1 - KEPT**self._carts) * np.array([1, 1 - left])
        return carts

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        carts = [(*key, *cart) for key, cart in self._open.items()]
        sums = {"watched": self._watched, "bought": self._bought, "carts": self._carts}
        return sums | {"open": np.array(carts, np.int64).reshape(-1, 4)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, or begin again where carts have another time now."""
        if len(state["watched"]) == len(self._bin):
            self._watched, self._bought, self._carts = state["watched"], state["bought"], state["carts"]
            self._open = {(n, k): (ms, cart) for n, k, ms, cart in state["open"].tolist()}

    def _close(self, key: tuple[int, int], now: int, bought: bool) -> None:
        ms, cart = self._open.pop(key)
        ages, weight = self._ages(np.array([now - ms]))[0], KEPT ** (self._carts - cart)
        if bought:
            last = self._bin == max(np.count_nonzero(ages) - 1, 0)
            self._bought = self._bought + weight * last
            ages = np.where(last, 1, ages)
        self._watched = self._watched + weight * ages

    def _ages(self, ms: Array) -> Array:
        """How much of each bin carts of these ages have seen, [N, bins]; bin k ends at about 2^(k+1) s."""
        scale = len(self._bin) / np.log2(1 + self._wait_s)
        scaled: Array = scale * np.log2(1 + np.maximum(ms, 0) / 1000)
        return np.clip(scaled[:, None] - self._bin, 0, 1)
