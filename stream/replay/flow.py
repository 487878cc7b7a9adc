"""Flow control: publish no faster than the roles learn *and keep*, so that no log drops what a restart needs.

A stretch of events passes three stages: published; ranked, when rank's checkpoints hold it; learned,
when train has committed (with a snapshot) all examples that were there once it was ranked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from stream.errors import Fatal
from stream.log import Log, Positions, parse_note

POLL_S = 0.05


@dataclass
class _Stretch:
    """Events up to `events`, and the examples that came of them, once known."""

    size: int
    events: Positions
    examples: Positions | None = None


class Flow:
    """Lets publishers go on while at most `window` events are published and not yet learned.

    Parameters
    ----------
    log
        Where positions are looked up; nothing is read or joined.
    clock, sleep
        Seconds.
    window
        Events, whoever published them since this was made.
    timeout_s
        How long to wait for a role that does not move.

    Attributes
    ----------
    outstanding : int
        Events not yet learned, as of the newest look.
    """

    def __init__(
        self,
        log: Log,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        window: int,
        timeout_s: float = 60.0,
    ) -> None:
        self._log, self._clock, self._sleep = log, clock, sleep
        self._window, self._timeout_s = window, timeout_s
        self._published = log.ends("events")
        self._stretches: deque[_Stretch] = deque()
        self.outstanding = 0

    def wait(self) -> None:
        """Return when there is room for more events.

        Raises
        ------
        Fatal
            When a role has not moved for `timeout_s`: says which, and where it stands.
        """
        self._wait(self._window)

    def drain(self) -> None:
        """Return when everything is learned; raises as `wait`."""
        self._wait(0)

    def _wait(self, most: int) -> None:
        self._note_published()
        since, seen = self._clock(), self._look()
        while self.outstanding > most:
            if self._clock() - since > self._timeout_s:
                raise Fatal(self._stuck())
            self._sleep(POLL_S)
            now = self._look()
            if now != seen:
                since, seen = self._clock(), now

    def _note_published(self) -> None:
        ends = self._log.ends("events")
        size = sum(ends[p] - self._published.get(p, 0) for p in ends)
        if size > 0:
            self._stretches.append(_Stretch(size, ends))
            self._published = ends

    def _look(self) -> tuple[Positions, Positions]:
        """Move stretches to the stages they have reached; returns where rank and train stand."""
        ranked, learned = kept(self._log, "events", "rank"), kept(self._log, "examples", "train")
        for stretch in self._stretches:
            if stretch.examples is None and _reached(ranked, stretch.events):
                stretch.examples = self._log.ends("examples")
        while self._stretches:
            examples = self._stretches[0].examples
            if examples is None or not _reached(learned, examples):
                break
            self._stretches.popleft()
        self.outstanding = sum(stretch.size for stretch in self._stretches)
        return ranked, learned

    def _stuck(self) -> str:
        oldest = self._stretches[0]
        role, topic, want = (
            ("rank", "events", oldest.events)
            if oldest.examples is None
            else ("train", "examples", oldest.examples)
        )
        have = kept(self._log, topic, role)
        p = next(p for p in want if have.get(p, 0) < want[p])
        return (
            f"{role} has not moved for {self._timeout_s:g} s: its checkpoints hold {topic}[{p}] up to offset "
            f"{have.get(p, 0)} of {want[p]}. Is `liverank run {role}` running?"
        )


def kept(log: Log, topic: str, group: str) -> Positions:
    """First offset of each partition that no checkpoint of `group` holds; no commit, no entry."""
    positions: Positions = {}
    for p, committed in log.progress(topic, group).items():
        note = parse_note(committed.note)
        positions[p] = committed.offset if note is None else note.checkpoint
    return positions


def newest_ms(log: Log) -> int:
    """Newest event time that rank has seen, ms since the epoch; 0 when it has seen none."""
    notes = (parse_note(committed.note) for committed in log.progress("events", "rank").values())
    return max((note.ts for note in notes if note is not None), default=0)


def _reached(have: Positions, want: Positions) -> bool:
    return all(have.get(p, 0) >= offset for p, offset in want.items())
