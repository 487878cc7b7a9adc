"""Event ids seen lately, so that a re-delivery changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from stream.ids import hash_id


class Recent:
    """Remembers event ids for at least `window_ms` of event time, and for at most twice that.

    Two generations: the older one is forgotten whole when event time has moved on by a window.
    A generation that reaches `limit` is closed early, so memory stays bounded in a flood.

    Examples
    --------
    >>> recent = Recent(window_ms=1000, limit=100)
    >>> recent.seen("a", ts=5000), recent.seen("a", ts=5900), recent.seen("a", ts=8000)
    (False, True, False)
    """

    def __init__(self, window_ms: int, limit: int = 1_000_000) -> None:
        self.window_ms, self.limit = window_ms, limit
        self.since = 0
        self.newer: set[int] = set()
        self.older: set[int] = set()

    def seen(self, event_id: str, ts: int) -> bool:
        """Whether the id was seen within the window; it is remembered from now on."""
        gone = ts - self.since
        if gone > self.window_ms or len(self.newer) >= self.limit:
            self.older = self.newer if gone <= 2 * self.window_ms else set()
            self.newer = set()
            self.since = max(ts, self.since)
        code = hash_id(event_id)
        if code in self.newer or code in self.older:
            return True
        self.newer.add(code)
        return False

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {
            "since": self.since,
            "newer": np.fromiter(self.newer, np.uint64, len(self.newer)),
            "older": np.fromiter(self.older, np.uint64, len(self.older)),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take in what `state` returned."""
        self.since = state["since"]
        self.newer, self.older = set(state["newer"].tolist()), set(state["older"].tolist())
