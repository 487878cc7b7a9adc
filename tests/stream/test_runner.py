"""The loop around a role: what is processed, published and committed, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stream.checkpoint import Checkpoint, Store
from stream.errors import Fatal, Retryable
from stream.log import Output, Positions, Records, parse_note
from stream.memory import MemoryLog
from stream.runner import Runner
from stream.settings import Settings


class Crash(Exception):
    """The process dies here."""


class Adder:
    """A role that adds numbers up, and publishes each with the sum so far."""

    name = "rank"
    input = "events"
    broadcasts: tuple[str, ...] = ("items",)
    schema = 7
    commits_each_batch = True

    def __init__(self) -> None:
        self.sums: dict[int, int] = {}
        self.absorbed: list[bytes | None] = []
        self.quiet: list[bytes | None] = []
        self.settled_at: list[float] = []
        self.gaps: list[tuple[int, int]] = []
        self.prepared = self.due = False
        self.whole = True

    def prepare(self) -> None:
        self.prepared = True

    def units(self, partitions: list[int]) -> dict[str, list[int]]:
        return {f"rank-{p}": [p] for p in partitions}

    def restore(self, unit: str, partitions: list[int], checkpoints: list[Checkpoint]) -> None:
        self.sums[partitions[0]] = sum(c.state["sum"] for c in checkpoints)

    def drop(self, unit: str) -> None:
        del self.sums[int(unit[5:])]

    def absorb(self, records: Records, now: float) -> list[Output]:
        self.absorbed += records.values
        return [Output("alerts", None, value) for value in records.values]

    def process(self, records: Records, now: float, quiet: bool) -> list[Output]:
        outputs = []
        for value in records.values:
            self.sums[records.partition] += int(value or 0)
            outputs.append(Output("outcomes", None, b"%s %d" % (value, self.sums[records.partition])))
        self.quiet += records.values if quiet else []
        return outputs

    def tick(self, now: float) -> list[Output]:
        return []

    def settled(self, now: float) -> None:
        self.settled_at.append(now)

    def state(self, unit: str, sequence: int) -> tuple[dict[str, Any], int, int]:
        total = self.sums[int(unit[5:])]
        if self.whole or sequence < 0:
            self.base = total
            return {"sum": total}, 99, -1
        return {"sum": total - self.base}, 99, sequence

    def checkpoint_due(self, unit: str, now: float) -> bool:
        return self.due

    def gap(self, partition: int, count: int) -> None:
        self.gaps.append((partition, count))


class Stage:
    def __init__(self, path: Path, partitions: int = 1) -> None:
        counts = {"events": partitions, "items": 1, "outcomes": 1, "alerts": 1}
        self.now = 1000.0
        self.log = MemoryLog(counts, lambda: self.now)
        self.store = Store(path)
        self.steps: list[int] = []
        self.crash_at = 0

    def publish(self, *values: int, topic: str = "events", partition: int = 0) -> None:
        self.log.append([Output(topic, None, b"%d" % v, partition) for v in values])

    def start(self) -> Runner:
        self.role = Adder()
        runner = Runner(self.role, self.log, self.store, Settings(), lambda: self.now, self._step)
        runner.start(patience=0.0)
        self.steps.clear()
        return runner

    def _step(self, number: int) -> None:
        self.steps.append(number)
        if number == self.crash_at:
            self.crash_at = 0
            raise Crash

    def published(self, topic: str = "outcomes") -> list[bytes | None]:
        return [o.value for o in self.log.outputs(topic)]

    def committed(self) -> Positions:
        return {p: c.offset for p, c in self.log.progress("events", "rank").items()}

    def held(self, partition: int = 0) -> int:
        """First offset that no checkpoint holds, as the commit's note says."""
        note = parse_note(self.log.progress("events", "rank")[partition].note)
        assert note is not None
        return note.checkpoint


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_a_turn_takes_its_steps_in_order(stage: Stage) -> None:
    stage.publish(1, 2)
    runner = stage.start()
    assert stage.role.prepared
    assert runner.once(0.0) == 2
    assert stage.steps == [1, 2, 3, 4, 5, 6]
    assert stage.published() == [b"1 1", b"2 3"]
    assert stage.committed() == {0: 2}
    assert stage.role.settled_at == [1000.0]


def test_an_empty_turn_publishes_and_commits_nothing(stage: Stage) -> None:
    runner = stage.start()
    assert runner.once(0.0) == 0
    assert (stage.committed(), stage.role.settled_at) == ({}, [])


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6])
def test_after_a_crash_every_number_was_added_once(stage: Stage, step: int) -> None:
    stage.publish(1, 2)
    stage.start().once(0.0)
    stage.publish(3)
    stage.crash_at = step
    runner = stage.start()
    with pytest.raises(Crash):
        runner.once(0.0)
    stage.start().once(0.0)
    assert stage.role.sums == {0: 6}
    assert dict.fromkeys(stage.published()) == dict.fromkeys([b"1 1", b"2 3", b"3 6"])
    assert stage.published().count(b"3 6") <= 2


def test_what_was_committed_is_replayed_quietly(stage: Stage) -> None:
    stage.publish(1, 2)
    stage.start().once(0.0)
    stage.publish(3)
    stage.start().once(0.0)
    assert stage.role.quiet == [b"1", b"2"]
    assert stage.published() == [b"1 1", b"2 3", b"3 6"]


def test_a_checkpoint_shortens_the_replay(stage: Stage) -> None:
    stage.publish(1, 2)
    runner = stage.start()
    stage.role.due = True
    runner.once(0.0)
    assert stage.held() == 2
    stage.role.due = False
    stage.publish(3)
    runner.once(0.0)
    assert (stage.held(), stage.committed()) == (2, {0: 3})
    stage.start().once(0.0)
    assert (stage.role.quiet, stage.role.sums) == ([b"3"], {0: 6})


def test_a_checkpoint_beyond_the_commit_is_where_reading_begins(stage: Stage) -> None:
    stage.publish(1, 2)
    runner = stage.start()
    runner.once(0.0)
    stage.role.due = True
    stage.publish(3)
    stage.crash_at = 6
    with pytest.raises(Crash):
        runner.once(0.0)
    checkpoint = Checkpoint(
        schema=7, identity=stage.log.identity("events"), positions={0: 5}, newest_ts=0, state={"sum": 50}
    )
    stage.publish(4, 5, 6)
    stage.store.write("rank-0", checkpoint, stage.store.claim("rank-0"))
    stage.start().once(0.0)
    assert (stage.role.quiet, stage.role.sums) == ([], {0: 56})


def test_increments_build_on_the_whole_checkpoint_of_this_run(stage: Stage) -> None:
    stage.publish(1, 2)
    runner = stage.start()
    stage.role.due, stage.role.whole = True, False
    runner.once(0.0)
    for value in (3, 4):
        stage.publish(value)
        runner.once(0.0)
    stage.start().once(0.0)
    assert (stage.role.quiet, stage.role.sums) == ([], {0: 10})


def test_without_a_checkpoint_reading_begins_where_the_log_does(stage: Stage) -> None:
    stage.publish(1, 2, 3)
    stage.log.expire("events", 0, 2)
    stage.start().once(0.0)
    assert (stage.role.sums, stage.role.gaps) == ({0: 3}, [])


def test_records_that_expired_after_the_checkpoint_are_a_gap(stage: Stage) -> None:
    stage.publish(1)
    runner = stage.start()
    stage.role.due = True
    runner.once(0.0)
    stage.publish(2, 3, 4)
    stage.log.expire("events", 0, 3)
    stage.start().once(0.0)
    assert (stage.role.sums, stage.role.gaps) == ({0: 5}, [(0, 2)])


def test_a_log_that_ends_before_the_checkpoint_stops_the_role(stage: Stage) -> None:
    checkpoint = Checkpoint(
        schema=7, identity=stage.log.identity("events"), positions={0: 9}, newest_ts=0, state={"sum": 1}
    )
    stage.store.write("rank-0", checkpoint, 1)
    stage.publish(1, 2)
    with pytest.raises(Fatal, match="ends before offset 9"):
        stage.start().once(0.0)


@pytest.mark.parametrize(("schema", "identity"), [(8, "memory/events/1"), (7, "another log")])
def test_a_checkpoint_of_another_schema_or_log_is_not_used(stage: Stage, schema: int, identity: str) -> None:
    other = Checkpoint(schema=schema, identity=identity, positions={0: 9}, newest_ts=0, state={"sum": 50})
    stage.store.write("rank-0", other, 1)
    stage.publish(1, 2)
    stage.start().once(0.0)
    assert stage.role.sums == {0: 3}


def test_leaving_writes_a_checkpoint(stage: Stage) -> None:
    stage.publish(1, 2)
    runner = stage.start()
    runner.once(0.0)
    runner.close()
    assert (stage.held(), stage.role.sums) == (2, {})
    stage.start().once(0.0)
    assert (stage.role.quiet, stage.role.sums) == ([], {0: 3})


def test_a_store_that_is_full_does_not_keep_a_partition_from_moving_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Retryable("disk full")

    stage.publish(1)
    runner = stage.start()
    runner.once(0.0)
    monkeypatch.setattr(stage.store, "put", refuse)
    runner.close()
    monkeypatch.undo()
    stage.start().once(0.0)
    assert stage.role.sums == {0: 1}


def test_broadcasts_are_read_before_the_first_event(stage: Stage) -> None:
    stage.publish(5, 6, topic="items")
    runner = Runner(Adder(), stage.log, stage.store, Settings(), lambda: stage.now)
    runner.start(patience=1.0)
    assert runner.role.absorbed == [b"5", b"6"]
    assert stage.published("alerts") == [b"5", b"6"]
    stage.publish(7, topic="items")
    runner.once(0.0)
    assert runner.role.absorbed == [b"5", b"6", b"7"]


def test_a_broadcast_topic_without_its_last_record_does_not_hold_the_start_up(stage: Stage) -> None:
    stage.publish(5, topic="items")
    stage.log.expire("items", 0, 1)
    ticking = iter(range(1000, 2000))
    runner = Runner(Adder(), stage.log, stage.store, Settings(), lambda: float(next(ticking)))
    runner.start(patience=5.0)
    assert runner.role.absorbed == []


def test_records_of_a_partition_that_was_taken_away_are_left_alone(stage: Stage) -> None:
    runner = stage.start()
    runner.once(0.0)
    runner._revoke([0])
    assert runner._process(Records("events", 0, [0], [0], [None], [b"1"])) == []


def test_records_that_come_again_are_not_processed_again(stage: Stage) -> None:
    stage.publish(1, 2)
    runner = stage.start()
    runner.once(0.0)
    again = Records("events", 0, [0, 1, 2], [0] * 3, [None] * 3, [b"1", b"2", b"3"])
    assert [o.value for o in runner._process(again)] == [b"3 6"]


def test_who_was_taken_for_dead_does_not_undo_what_the_new_owner_wrote(stage: Stage) -> None:
    stage.publish(1, 2)
    zombie = stage.start()
    zombie_role = stage.role
    zombie.once(0.0)
    runner = stage.start()
    stage.publish(3)
    stage.role.due = True
    runner.once(0.0)
    zombie_role.due = True
    state = zombie_role.state("rank-0", -1)
    assert state[0] == {"sum": 3}
    late = Checkpoint(
        schema=7, identity=stage.log.identity("events"), positions={0: 2}, newest_ts=0, state={"sum": 3}
    )
    stage.store.write("rank-0", late, zombie.epochs["rank-0"])
    stage.start().once(0.0)
    assert (stage.role.quiet, stage.role.sums) == ([], {0: 6})


def test_a_role_that_commits_only_checkpoints(stage: Stage) -> None:
    stage.publish(1, 2)
    runner = stage.start()
    stage.role.commits_each_batch = False
    runner.once(0.0)
    assert stage.committed() == {}
    stage.role.due = True
    runner.once(0.0)
    assert stage.committed() == {0: 2}


def test_each_partition_has_its_own_checkpoint_one_a_turn(tmp_path: Path) -> None:
    stage = Stage(tmp_path, partitions=2)
    stage.publish(1, partition=0)
    stage.publish(10, 20, partition=1)
    runner = stage.start()
    stage.role.due = True
    runner.once(0.0)
    assert (stage.held(0), stage.held(1)) == (1, 0)
    runner.once(0.0)
    assert (stage.held(0), stage.held(1)) == (1, 2)
    stage.start().once(0.0)
    assert stage.role.sums == {0: 1, 1: 30}
