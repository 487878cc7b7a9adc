"""The loop that every role runs in: poll, process, publish, flush, commit, checkpoint.

::

    restore    load the checkpoint (position S), read the committed offset (C), replay S..C quietly
    1 poll     broadcast inputs, then a batch of the role's own input
    2 process  the records of one partition: state changes, outputs are made
    3 publish  they are queued, and sent while the next partition is processed
    4 flush    all of them are acknowledged
    5 commit   the positions read (or, for a role that says so, only what a checkpoint holds)
    6 checkpoint  of one unit, when it is due, and its position goes into the commit's note

After a crash between any two steps, at most what lies between the last commit and the crash is
published again; every output carries the position of its input, and readers fold.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from stream.checkpoint import Checkpoint, Store
from stream.errors import Fatal, Retryable
from stream.log import Log, Note, Output, Positions, Records, Source
from stream.settings import Settings

POLL_S = 0.005
"""How long to wait for a first record before looking at what is due by time."""
LIMIT = 4096
"""Records per batch: enough to amortise a batch, few enough to keep slates fresh while catching up."""
BROADCAST_S = 0.02

NEVER = -1
"""Sequence of a unit that has no whole checkpoint of this run yet."""

logger = logging.getLogger(__name__)


class Role(Protocol):
    """What a role is to the runner. State is held in units, each of some input partitions."""

    name: str
    input: str
    broadcasts: tuple[str, ...]
    schema: int
    commits_each_batch: bool

    def prepare(self) -> None:
        """Do what takes long before events come: compile, allocate, export."""
        ...

    def units(self, partitions: list[int]) -> dict[str, list[int]]:
        """Name the units of state that these partitions make."""
        ...

    def restore(self, unit: str, partitions: list[int], checkpoints: list[Checkpoint]) -> None:
        """Start a unit from its checkpoint (whole, then increments), or from nothing when there is none."""
        ...

    def drop(self, unit: str) -> None:
        """Forget a unit: another process has it now."""
        ...

    def absorb(self, records: Records, now: float) -> list[Output]:
        """Take in broadcast records."""
        ...

    def process(self, records: Records, now: float, quiet: bool) -> list[Output]:
        """Take in records of the input; when quiet, state changes but what is returned is not published."""
        ...

    def tick(self, now: float) -> list[Output]:
        """What is due by time, after each batch (also an empty one)."""
        ...

    def settled(self, now: float) -> None:
        """Called when everything returned so far is acknowledged."""
        ...

    def state(self, unit: str, sequence: int) -> tuple[dict[str, Any], int, int]:
        """State to keep, the newest event time in it, and the base sequence (-1: it is whole).

        `sequence` is that of the unit's last whole checkpoint in this run, -1 when there is none yet.
        """
        ...

    def checkpoint_due(self, unit: str, now: float) -> bool:
        """Whether the unit wants a checkpoint now."""
        ...

    def gap(self, partition: int, count: int) -> None:
        """Count input records that the log dropped before they were read."""
        ...


def _nothing(step: int) -> None:
    """Stand in for the crash marker of the tests."""


class Runner:
    """Runs one role on one log.

    Parameters
    ----------
    role, log, store, settings
        What runs, on what.
    clock
        Seconds since the epoch.
    step
        Called with the number of each step before it is taken.
    """

    def __init__(
        self,
        role: Role,
        log: Log,
        store: Store,
        settings: Settings,
        clock: Callable[[], float],
        step: Callable[[int], None] = _nothing,
    ) -> None:
        self.role, self.log, self.store, self.settings = role, log, store, settings
        self.clock, self.step = clock, step
        self.positions: Positions = {}
        self.quiet_until: Positions = {}
        self.units: dict[str, list[int]] = {}
        self.notes: dict[int, Note] = {}
        self.epochs: dict[str, int] = {}
        self.sequences: dict[str, int] = {}
        self.assigned = False
        self._next_broadcast = 0.0
        self.sink = log.sink()
        self.sources = {topic: log.broadcast_source(topic, {}) for topic in role.broadcasts}
        self._identity = log.identity(role.input)
        self.source = log.group_source(role.input, role.name, self._assign, self._revoke)

    def start(self, patience: float = 1.0) -> None:
        """Prepare the role and read what the broadcast topics hold now, before anything is processed.

        Compaction can leave nothing at the very end of a log, hence `patience`: seconds without a
        record after which a topic counts as read.
        """
        self.role.prepare()
        for topic, source in self.sources.items():
            ends = {p: end for p, end in self.log.ends(topic).items() if end > 0}
            last = self.clock()
            while ends and self.clock() - last < patience:
                for records in source.poll(LIMIT, POLL_S):
                    for output in self.role.absorb(records, self.clock()):
                        self.sink.publish(output)
                    last = self.clock()
                    if records.offsets[-1] + 1 >= ends.get(records.partition, 0):
                        ends.pop(records.partition, None)
        self.sink.flush()

    def once(self, timeout: float = POLL_S) -> int:
        """One turn of the loop; returns the number of records read."""
        now = self.clock()
        self.step(1)
        published = self._publish(self._absorb(now))
        batch = self.source.poll(LIMIT, timeout)
        self._report_gaps()
        for records in batch:
            self.step(2)
            outputs = self._process(records)
            self.step(3)
            published += self._publish(outputs)
        published += self._publish(self.role.tick(self.clock()))
        self.step(4)
        if published:
            self.sink.flush()
            self.role.settled(self.clock())
        self.step(5)
        if batch and self.role.commits_each_batch:
            self._commit({records.partition for records in batch})
        self.step(6)
        for unit in self.units:
            if self.role.checkpoint_due(unit, now):
                self._checkpoint(unit)
                self.units[unit] = self.units.pop(unit)  # the others come first next time
                break  # one a turn: events are waiting
        return sum(len(records.offsets) for records in batch)

    def close(self) -> None:
        """Checkpoint everything (as whenever partitions are taken away) and leave."""
        self.source.close()
        for source in self.sources.values():
            source.close()

    def _publish(self, outputs: list[Output]) -> int:
        for output in outputs:
            self.sink.publish(output)
        return len(outputs)

    def _absorb(self, now: float) -> list[Output]:
        if now < self._next_broadcast:
            return []
        self._next_broadcast = now + BROADCAST_S
        return [
            output
            for source in self.sources.values()
            for records in source.poll(LIMIT, 0.0)
            for output in self.role.absorb(records, now)
        ]

    def _process(self, records: Records) -> list[Output]:
        """Split a batch where quiet replay ends, and keep only what is new."""
        partition = records.partition
        if partition not in self.positions:
            return []  # read ahead of a rebalance that took it away
        outputs: list[Output] = []
        fresh = _from(records, self.positions[partition])
        for part, quiet in _split(fresh, self.quiet_until[partition]):
            made = self.role.process(part, self.clock(), quiet)
            outputs += [] if quiet else made
            self.positions[partition] = part.offsets[-1] + 1
        return outputs

    def _assign(self, source: Source, partitions: list[int]) -> Positions:
        committed = source.committed(partitions)
        start: Positions = {}
        for unit, own in self.role.units(partitions).items():
            self.epochs[unit] = self.store.claim(unit)
            found = self.store.read(unit, self.role.schema, self._identity)
            self.role.restore(unit, own, found)
            self.units[unit], self.sequences[unit] = own, NEVER
            for p in own:
                held = found[-1].positions.get(p, 0) if found else 0
                self.notes[p] = Note(held, found[-1].newest_ts if found else 0)
                self.quiet_until[p] = max(held, committed[p].offset if p in committed else 0)
                self.positions[p] = held
                if found:  # else the log's beginning, wherever that is by now
                    start[p] = held
                logger.info("%s[%d]: from %d, quiet up to %d", self.role.input, p, held, self.quiet_until[p])
        self.assigned = True
        return start

    def _revoke(self, partitions: list[int]) -> None:
        for unit in [u for u, own in self.units.items() if set(own) & set(partitions)]:
            try:
                self._checkpoint(unit)
            except Retryable as error:  # the new owner replays a little more
                logger.warning("%s: no checkpoint while handing over: %s", unit, error)
            self.role.drop(unit)
            for p in self.units.pop(unit):
                self.positions.pop(p, None)

    def _commit(self, partitions: Iterable[int]) -> None:
        own = [p for p in partitions if p in self.positions]
        self.source.commit({p: self.positions[p] for p in own}, {p: self.notes[p].write() for p in own})

    def _checkpoint(self, unit: str) -> None:
        own = self.units[unit]
        state, newest_ts, base = self.role.state(unit, self.sequences[unit])
        sequence = self.store.write(
            unit,
            Checkpoint(
                schema=self.role.schema,
                identity=self._identity,
                positions={p: self.positions[p] for p in own},
                newest_ts=newest_ts,
                base=base,
                state=state,
            ),
            self.epochs[unit],
        )
        if base < 0:
            self.sequences[unit] = sequence
        for p in own:
            self.notes[p] = Note(self.positions[p], newest_ts)
        self._commit(own)

    def _report_gaps(self) -> None:
        for gap in self.source.gaps:
            where = f"{gap.topic}[{gap.partition}]"
            if gap.got < gap.wanted:
                raise Fatal(
                    f"{where} ends before offset {gap.wanted}, which has been read: records were lost, "
                    f"or it is another log. Remove the checkpoints in {self.store.path} to start over"
                )
            logger.error("%s: %d to %d expired before they were read", where, gap.wanted, gap.got - 1)
            self.role.gap(gap.partition, gap.got - gap.wanted)
        self.source.gaps.clear()


def _from(records: Records, position: int) -> Records:
    """The records at or after `position`."""
    return _cut(records, bisect_left(records.offsets, position), len(records.offsets))


def _split(records: Records, border: int) -> Iterator[tuple[Records, bool]]:
    """The records before the offset `border`, quiet, then the others; empty parts are left out.

    >>> r = Records("events", 0, [3, 4, 5], [0, 0, 0], [b"", b"", b""], [b"", b"", b""])
    >>> [(part.offsets, quiet) for part, quiet in _split(r, 4)]
    [([3], True), ([4, 5], False)]
    """
    middle = bisect_left(records.offsets, border)
    for start, stop, quiet in ((0, middle, True), (middle, len(records.offsets), False)):
        if start < stop:
            yield _cut(records, start, stop), quiet


def _cut(records: Records, start: int, stop: int) -> Records:
    if start == 0 and stop == len(records.offsets):
        return records
    return Records(
        records.topic,
        records.partition,
        records.offsets[start:stop],
        records.timestamps[start:stop],
        records.keys[start:stop],
        records.values[start:stop],
    )
