"""What time it is in the stream, which may lag behind the clock or be a recording."""

from __future__ import annotations


class StreamTime:
    """The newest broker time seen (`ms`), moving on with the clock while nothing comes.

    >>> time = StreamTime()
    >>> time.saw(5000); time.idle(100.0); time.idle(100.5); time.ms
    5500
    """

    def __init__(self, ms: int = 0) -> None:
        self.ms = ms
        self._idle_since: float | None = None

    def saw(self, ms: int) -> None:
        """Something of this time came; until the next `idle`, the clock does not count."""
        self.ms, self._idle_since = max(self.ms, ms), None

    def idle(self, now: float) -> None:
        """Nothing came up to `now` (s)."""
        if self._idle_since is None or not self.ms:
            self._idle_since = now
        passed = int((now - self._idle_since) * 1000)
        if passed > 0:
            self.ms, self._idle_since = self.ms + passed, self._idle_since + passed / 1000
