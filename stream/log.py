"""What the roles know of a log: records in, outputs out, positions. No client library.

`broker.py` does it on Kafka, `memory.py` in this process for `evaluate` and the tests.
"""

from __future__ import annotations

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


class Source(Protocol):
    """Reads topics. Every method may raise `Retryable` or `Fatal`."""

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
        """Return when everything queued is acknowledged; raise if anything failed."""
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

    def ends(self, topic: str) -> Positions:
        """High watermark of each partition."""
        ...
