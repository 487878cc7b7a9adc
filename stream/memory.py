"""The log in this process: for `evaluate` and the tests. One thread, one fixed order, no waiting.

>>> log = MemoryLog({"events": 2}, clock=lambda: 1_700_000_000.0)
>>> sink = log.sink()
>>> sink.publish(Output("events", b"u", b"hello"))
>>> sink.flush()
>>> source = log.broadcast_source("events", {})
>>> [(r.partition, r.offsets, r.timestamps, r.values) for r in source.poll(10, 0)]
[(1, [0], [1700000000000], [b'hello'])]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stream.errors import Fatal
from stream.log import Committed, Gap, Output, Positions, Records, Source
from stream.partition import partition_of

Headers = tuple[tuple[str, bytes], ...]


@dataclass
class _Partition:
    """Columns of equal length; the record at index i has offset `start` + i."""

    start: int = 0
    timestamps: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.start + len(self.keys)

    def append(self, timestamp: int, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        self.timestamps.append(timestamp)
        self.keys.append(key)
        self.values.append(value)
        self.headers.append(headers)

    def expire(self, before: int) -> None:
        count = min(before, self.end) - self.start
        if count > 0:
            for column in (self.timestamps, self.keys, self.values, self.headers):
                del column[:count]
            self.start += count

    def read(self, topic: str, partition: int, offset: int, limit: int) -> Records:
        first = offset - self.start
        stop = min(first + limit, len(self.keys))
        return Records(
            topic,
            partition,
            list(range(offset, self.start + stop)),
            self.timestamps[first:stop],
            self.keys[first:stop],
            self.values[first:stop],
        )


@dataclass
class _Group:
    """Commits of one group on one topic, and its one member."""

    committed: dict[int, Committed] = field(default_factory=dict)
    member: _GroupSource | None = None


class MemoryLog:
    """Topics, groups and their commits, as plain lists.

    Parameters
    ----------
    counts
        Partitions of each topic; no other topics exist.
    clock
        Seconds since the epoch; gives each record its broker timestamp.
    """

    def __init__(self, counts: Mapping[str, int], clock: Callable[[], float]) -> None:
        self._topics = {topic: [_Partition() for _ in range(count)] for topic, count in counts.items()}
        self._groups: dict[tuple[str, str], _Group] = {}
        self._clock = clock
        self._turn = 0

    def group_source(
        self,
        topic: str,
        group: str,
        assigned: Callable[[Source, list[int]], Positions],
        revoked: Callable[[list[int]], None],
    ) -> Source:
        """Read all partitions for the group; a member that is still there is put out, as if it had died."""
        state = self._group(topic, group)
        state.member = _GroupSource(topic, self._partitions(topic), state, assigned, revoked)
        return state.member

    def broadcast_source(self, topic: str, start: Positions) -> Source:
        """Read all partitions of `topic`, from `start` or the beginning, in no group."""
        return _MemorySource(topic, self._partitions(topic), start)

    def sink(self) -> MemorySink:
        """Publish to any topic; what is not flushed is lost with the sink."""
        return MemorySink(self)

    def identity(self, topic: str) -> str:
        """Name of the log of `topic`: topic and partition count, there being one cluster only."""
        return f"memory/{topic}/{len(self._partitions(topic))}"

    def ends(self, topic: str) -> Positions:
        """Offset of the next record of each partition."""
        return {p: columns.end for p, columns in enumerate(self._partitions(topic))}

    def progress(self, topic: str, group: str) -> dict[int, Committed]:
        """What `group` has committed for `topic`."""
        return dict(self._group(topic, group).committed)

    def outputs(self, topic: str) -> list[Output]:
        """Everything that `topic` holds, partition by partition, headers too."""
        return [
            Output(topic, key, value, p, headers)
            for p, columns in enumerate(self._partitions(topic))
            for key, value, headers in zip(columns.keys, columns.values, columns.headers, strict=True)
        ]

    def expire(self, topic: str, partition: int, before: int) -> None:
        """Forget the records of one partition below offset `before`, as retention does."""
        self._partitions(topic)[partition].expire(before)

    def append(self, outputs: list[Output]) -> None:
        """Put records at the ends of their partitions, all with the clock's present time."""
        timestamp = int(self._clock() * 1000)
        for topic, key, value, partition, headers in outputs:
            columns = self._partitions(topic)
            if partition < 0:
                partition = self._choose(key, len(columns))
            elif partition >= len(columns):
                raise Fatal(f"{topic} has {len(columns)} partitions, no partition {partition}")
            columns[partition].append(timestamp, key, value, headers)

    def _choose(self, key: bytes | None, count: int) -> int:
        if key is not None:
            return partition_of(key, count)
        self._turn += 1
        return self._turn % count

    def _partitions(self, topic: str) -> list[_Partition]:
        if topic not in self._topics:
            raise Fatal(f"topic {topic} does not exist; topics are {', '.join(sorted(self._topics))}")
        return self._topics[topic]

    def _group(self, topic: str, group: str) -> _Group:
        self._partitions(topic)
        return self._groups.setdefault((topic, group), _Group())


class MemorySink:
    """Queues records until `flush`, so that a crash before it loses them."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._queue: list[Output] = []

    def publish(self, output: Output) -> None:
        """Queue one record."""
        self._queue.append(output)

    def flush(self) -> None:
        """Append everything queued; raises `Fatal` when a topic or partition does not exist."""
        queue, self._queue = self._queue, []
        self._log.append(queue)


class _MemorySource:
    """Reads partitions in turn, each poll beginning one partition further."""

    def __init__(self, topic: str, partitions: list[_Partition], start: Positions) -> None:
        self.gaps: list[Gap] = []
        self._topic = topic
        self._partitions = partitions
        self._positions: Positions = {}
        self._first = 0
        self._start(start)

    def _start(self, positions: Positions) -> None:
        self._positions = {p: positions.get(p, each.start) for p, each in enumerate(self._partitions)}

    def poll(self, limit: int, timeout: float) -> list[Records]:
        """Up to `limit` records, as evenly from all partitions as they have them; never waits."""
        count = len(self._partitions)
        turn = [(self._first + i) % count for i in range(count)]
        ready = [p for p in turn if self._available(p)]
        self._first = (self._first + 1) % count
        batch = []
        share = max(1, limit // max(1, len(ready)))
        for p in ready[:limit]:
            records = self._partitions[p].read(self._topic, p, self._positions[p], share)
            self._positions[p] = records.offsets[-1] + 1
            batch.append(records)
        return batch

    def _available(self, p: int) -> bool:
        columns, wanted = self._partitions[p], self._positions[p]
        if not columns.start <= wanted <= columns.end:
            self.gaps.append(Gap(self._topic, p, wanted, columns.start))
            self._positions[p] = columns.start
        return self._positions[p] < columns.end

    def commit(self, positions: Positions, notes: Mapping[int, str]) -> None:
        """Refused: this source belongs to no group."""
        raise Fatal(f"a broadcast source of {self._topic} has no group to commit for")

    def committed(self, partitions: list[int]) -> dict[int, Committed]:
        """Nothing: this source belongs to no group."""
        return {}

    def close(self) -> None:
        """Nothing to leave."""


class _GroupSource(_MemorySource):
    """The one member of a group; it is assigned every partition at its first poll."""

    def __init__(
        self,
        topic: str,
        partitions: list[_Partition],
        group: _Group,
        assigned: Callable[[Source, list[int]], Positions],
        revoked: Callable[[list[int]], None],
    ) -> None:
        super().__init__(topic, partitions, {})
        self._group = group
        self._assigned = assigned
        self._revoked = revoked
        self._joined = False

    def poll(self, limit: int, timeout: float) -> list[Records]:
        self._check()
        if not self._joined:
            self._start(self._assigned(self, list(range(len(self._partitions)))))
            self._joined = True
        return super().poll(limit, timeout)

    def commit(self, positions: Positions, notes: Mapping[int, str]) -> None:
        self._check()
        for p, offset in positions.items():
            self._group.committed[p] = Committed(offset, notes.get(p, ""))

    def committed(self, partitions: list[int]) -> dict[int, Committed]:
        self._check()
        return {p: self._group.committed[p] for p in partitions if p in self._group.committed}

    def close(self) -> None:
        if self._group.member is self:
            if self._joined:
                self._revoked(list(range(len(self._partitions))))
            self._group.member = None

    def _check(self) -> None:
        """A member that has been replaced, or has left, must do no harm."""
        if self._group.member is not self:
            raise Fatal(f"{self._topic}: another member of the group has taken these partitions over")
