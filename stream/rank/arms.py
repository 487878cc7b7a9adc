"""Arms of the experiment: who is in which, and the signed trace that says so in an impression."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.settings import Settings

Array = NDArray[Any]

BUCKETS = 32
"""User buckets in which the variance of an arm is estimated."""

STRANGERS = "default"
"""Arm of the slate that strangers get."""

_SALT = np.uint64(0x9E3779B97F4A7C15)
_CACHED_TRACES = 10_000


class Arms:
    """The arms that the settings name, by code; the strangers' slate has the code after the last.

    Examples
    --------
    >>> arms = Arms(Settings())
    >>> arms.names, arms.of(np.array([5, 6], np.uint64)).tolist()
    (['fresh', 'default'], [0, 0])
    >>> arms.read(arms.trace(0, "1-7")), arms.read("fresh.1-7.forged")
    (0, None)
    """

    def __init__(self, settings: Settings) -> None:
        self.names = [arm.name for arm in settings.arms] + [STRANGERS]
        self.models = [arm.model for arm in settings.arms] + ["fresh"]
        self.strangers = len(settings.arms)
        self._bounds = np.cumsum([arm.share for arm in settings.arms])[:-1]
        self._secret = settings.slate.trace_secret.encode()
        self._read: dict[str, int | None] = {}

    def of(self, users: Array) -> Array:
        """Arm (uint8 [n]) of each user hash (uint64 [n])."""
        mixed = (users ^ (users >> np.uint64(31))) * _SALT
        share = (mixed >> np.uint64(40)).astype(np.float64) / 2**24
        arm: Array = np.searchsorted(self._bounds, share, side="right").astype(np.uint8)
        return arm

    def trace(self, arm: int, version: str) -> str:
        """Text that an impression echoes to say what was shown: arm, model version, signature."""
        text = f"{self.names[arm]}.{version}"
        return f"{text}.{self._sign(text)}"

    def read(self, trace: str) -> int | None:
        """The arm that a trace names; None when it was not signed here."""
        if trace not in self._read:
            if len(self._read) > _CACHED_TRACES:
                self._read.clear()
            text, _, signature = trace.rpartition(".")
            name = text.partition(".")[0]
            genuine = signature == self._sign(text) and name in self.names
            self._read[trace] = self.names.index(name) if genuine else None
        return self._read[trace]

    def _sign(self, text: str) -> str:
        return hashlib.blake2s(
            text.encode("utf-8", "surrogatepass"), key=self._secret[:32], digest_size=6
        ).hexdigest()
