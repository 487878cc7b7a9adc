"""Arms of the experiment: who is in which, and the signed trace that says so in an impression."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.messages import STRANGERS
from stream.settings import Settings

Array = NDArray[Any]

BUCKETS = 32
"""User buckets in which the variance of an arm is estimated."""

_SALT = np.uint64(0x9E3779B97F4A7C15)
_CACHED_TRACES = 10_000


ITEM_SHIFT = 40
"""A trace names an item by the upper 24 bits of its hash: enough to find it in one list."""


class Explored(NamedTuple):
    """The place of a slate that was explored.

    Attributes
    ----------
    item
        Hash of the item that was drawn, shifted by `ITEM_SHIFT`.
    pool
        How many items it was drawn from, all alike probable; one of them is the arm's own choice.
    odds
        One in so many slates of this arm shows this item at this place because it was drawn.
    chosen
        Bit a is set where arm a, to choose from the same pool, would have put this item there.
    """

    item: int
    pool: int
    odds: int
    chosen: int


class Trace(NamedTuple):
    """What a genuine trace says: code of the arm, and the explored place if there was one."""

    arm: int
    explored: Explored | None


class Arms:
    """The arms that the settings name, by code; the strangers' slate has the code after the last.

    Examples
    --------
    >>> arms = Arms(Settings())
    >>> arms.names, arms.of(np.array([5, 6], np.uint64)).tolist()
    (['fresh', 'default'], [0, 0])
    >>> arms.read(arms.trace(0, "1-7")), arms.read("fresh.1-7.forged")
    (Trace(arm=0, explored=None), None)
    >>> arms.trace(0, "1-7", Explored(0x5D20AA, pool=10, odds=2000, chosen=1)).rpartition(".")[0]
    'fresh.1-7.5d20aa-10-2000-1'
    """

    def __init__(self, settings: Settings) -> None:
        self.names = [arm.name for arm in settings.arms] + [STRANGERS]
        self.models = [arm.model for arm in settings.arms] + ["fresh"]
        self.strangers = len(settings.arms)
        self._bounds = np.cumsum([arm.share for arm in settings.arms])[:-1]
        self._secret = settings.slate.trace_secret.encode()
        self._read: dict[str, Trace | None] = {}

    def of(self, users: Array) -> Array:
        """Arm (uint8 [n]) of each user hash (uint64 [n])."""
        mixed = (users ^ (users >> np.uint64(31))) * _SALT
        share = (mixed >> np.uint64(40)).astype(np.float64) / 2**24
        arm: Array = np.searchsorted(self._bounds, share, side="right").astype(np.uint8)
        return arm

    def trace(self, arm: int, version: str, explored: Explored | None = None) -> str:
        """Text that an impression echoes to say what was shown: arm, model version, exploration."""
        text = f"{self.names[arm]}.{version}"
        if explored is not None:
            text += f".{explored.item:06x}-{explored.pool}-{explored.odds}-{explored.chosen:x}"
        return f"{text}.{self._sign(text)}"

    def read(self, trace: str) -> Trace | None:
        """What a trace says; None when it was not signed here, or says what these arms do not know."""
        if trace not in self._read:
            if len(self._read) > _CACHED_TRACES:
                self._read.clear()
            text, _, signature = trace.rpartition(".")
            genuine = signature == self._sign(text)
            self._read[trace] = self._parse(text) if genuine else None
        return self._read[trace]

    def _parse(self, text: str) -> Trace | None:
        name, _, *rest = text.split(".")
        if name not in self.names:
            return None
        if not rest:
            return Trace(self.names.index(name), None)
        item, pool, odds, chosen = rest[0].split("-")
        return Trace(self.names.index(name), Explored(int(item, 16), int(pool), int(odds), int(chosen, 16)))

    def _sign(self, text: str) -> str:
        # bits of `chosen` are arms by number: with other arms they would be others
        known = "/".join(self.names) if text.count(".") > 1 else ""
        return hashlib.blake2s(
            (text + known).encode("utf-8", "surrogatepass"), key=self._secret[:32], digest_size=6
        ).hexdigest()
