"""What the roles know of a log: records in, outputs out, positions. No client library.

`broker.py` does it on Kafka, `memory.py` in this process for `evaluate` and the tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

Positions = dict[int, int]
"""partition -> offset of the next record to read"""


class Records(NamedTuple):
    """Consecutive records of one partition, as columns of equal length; never empty.

    `topic` is the name without prefix; `timestamps` are the broker's, in ms.
    """

    topic: str
    partition: int
    offsets: list[int]
    timestamps: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]


class Output(NamedTuple):
    """One record to publish; partition -1 leaves the choice to the key (murmur2, as Java's)."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int = -1
    headers: tuple[tuple[str, bytes], ...] = ()


class Committed(NamedTuple):
    """What a group has committed for one partition: next offset, and a note of ours."""

    offset: int
    note: str


class Gap(NamedTuple):
    """Records that were gone (expired, or of an older log) before they were read.

    `wanted` is the offset asked for, `got` the one that reading went on from.
    """

    topic: str
    partition: int
    wanted: int
    got: int


class Note(NamedTuple):
    """What a role says beside its committed offset, for any client to read.

    Attributes
    ----------
    checkpoint
        First offset that its newest checkpoint does not hold.
    ts
        Newest event time that it has seen, ms; 0 when it has seen none.
    """

    checkpoint: int
    ts: int = 0

    def write(self) -> str:
        """Text of the note.

        >>> Note(42, 1700000000000).write()
        'checkpoint=42 ts=1700000000000'
        """
        return f"checkpoint={self.checkpoint} ts={self.ts}"


def parse_note(text: str) -> Note | None:
    """Read what `Note.write` wrote; None for a commit without a note of ours.

    >>> parse_note("checkpoint=42 ts=1700000000000")
    Note(checkpoint=42, ts=1700000000000)
    >>> parse_note("checkpoint=42")
    Note(checkpoint=42, ts=0)
    >>> parse_note("") is None
    True
    """
    match = _NOTE.fullmatch(text)
    return Note(int(match["checkpoint"]), int(match["ts"] or 0)) if match else None


_NOTE = re.compile(r"checkpoint=(?P<checkpoint>\d+)(?: ts=(?P<ts>\d+))?")


class Source(Protocol):
    """Reads topics. Every method may raise `Retryable` or `Fatal`.

    Attributes
    ----------
    gaps
        What `poll` could not get, oldest first; the reader of the list empties it.
    """

    gaps: list[Gap]

    def poll(self, limit: int, timeout: float) -> list[Records]:
        """Up to about `limit` records, waiting at most `timeout` seconds for the first."""
        ...

    def commit(self, positions: Positions, notes: Mapping[int, str]) -> None:
        """Commit, synchronously, for a source that belongs to a group."""
        ...

    def committed(self, partitions: list[int]) -> dict[int, Committed]:
        """What the group has committed; partitions without a commit are left out."""
        ...

    def close(self) -> None:
        """Leave the group, if any."""
        ...


class Sink(Protocol):
    """Publishes. Every method may raise `Retryable` or `Fatal`."""

    def publish(self, output: Output) -> None:
        """Queue one record."""
        ...

    def flush(self) -> None:
        """Return when everything queued is acknowledged; raise if anything failed.

        After a `Retryable` what is not acknowledged stays queued: call again, publish nothing twice.
        """
        ...


class Log(Protocol):
    """A set of topics. Topic names are without prefix."""

    def group_source(
        self,
        topic: str,
        group: str,
        assigned: Callable[[Source, list[int]], Positions],
        revoked: Callable[[list[int]], None],
    ) -> Source:
        """Read a share of the partitions of `topic`.

        Parameters
        ----------
        topic, group
            The topic, and the consumer group without prefix ("rank", "train").
        assigned
            Called within `poll` with partitions newly ours; returns where to start each (a
            partition left out starts at the beginning of the log).
        revoked
            Called within `poll` or `close` with partitions that are ours no longer.
        """
        ...

    def broadcast_source(self, topic: str, start: Positions) -> Source:
        """Read all partitions of `topic`, from `start` or the beginning, in no group."""
        ...

    def sink(self) -> Sink:
        """Publish to any topic."""
        ...

    def identity(self, topic: str) -> str:
        """Name one log of `topic` for good: cluster, topic, partition count."""
        ...

    def ends(self, topic: str) -> Positions:
        """High watermark of each partition."""
        ...

    def progress(self, topic: str, group: str) -> dict[int, Committed]:
        """What `group` has committed for each partition of `topic`, without joining the group.

        Partitions without a commit are left out.
        """
        ...
