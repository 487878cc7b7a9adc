"""The log on a broker: the embedded one, and Apache Kafka where there is one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from stream.broker import KafkaLog
from stream.errors import Fatal, LiverankError, Retryable
from stream.log import Committed, Gap, Output, Positions, Source
from stream.partition import partition_of
from stream.settings import Kafka

PATIENCE_S = 15.0


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.kafka)])
def kafka(request: pytest.FixtureRequest) -> Kafka:
    """Settings for a broker with topics of this test's own."""
    settings: Kafka = request.getfixturevalue(f"{request.param}_broker")
    return settings


@pytest.fixture
def log(kafka: Kafka) -> Iterator[KafkaLog]:
    log = KafkaLog(kafka)
    yield log
    log.close()


class Member:
    """A group member that starts where the group has committed, and notes what it is told."""

    def __init__(self, log: KafkaLog, start: Positions | None = None) -> None:
        self.calls: list[tuple[str, list[int]]] = []
        self.start = start
        self.failures: list[LiverankError] = []
        self.source = log.group_source("events", "rank", self.assigned, self.revoked)

    def assigned(self, source: Source, partitions: list[int]) -> Positions:
        if self.failures:
            raise self.failures.pop()
        self.calls.append(("assigned", partitions))
        if self.start is not None:
            return self.start
        return {p: committed.offset for p, committed in source.committed(partitions).items()}

    def revoked(self, partitions: list[int]) -> None:
        self.calls.append(("revoked", partitions))

    def owns(self) -> set[int]:
        own: set[int] = set()
        for what, partitions in self.calls:
            own = own | set(partitions) if what == "assigned" else own - set(partitions)
        return own


def publish(log: KafkaLog, partition: int, *values: bytes) -> None:
    sink = log.sink()
    for value in values:
        sink.publish(Output("events", b"u", value, partition))
    sink.flush()


def read(source: Source, count: int) -> list[tuple[int, int, bytes | None]]:
    """Poll until `count` records are there, as (partition, offset, value)."""
    found: list[tuple[int, int, bytes | None]] = []

    def enough() -> bool:
        for r in source.poll(1000, 0.05):
            found.extend((r.partition, offset, v) for offset, v in zip(r.offsets, r.values, strict=True))
        return len(found) >= count

    until(enough)
    return found


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline


def test_a_record_comes_back_as_it_was(log: KafkaLog) -> None:
    sink = log.sink()
    sink.publish(Output("events", b"k", b"v", 2, (("reason", b"x"),)))
    sink.publish(Output("events", None, None, 2))
    sink.flush()
    source = log.broadcast_source("events", {})
    records = []
    until(lambda: bool(records.extend(source.poll(10, 0.1)) or sum(len(r.offsets) for r in records) == 2))
    assert {r.topic for r in records} == {"events"}
    assert [key for r in records for key in r.keys] == [b"k", None]
    assert [value for r in records for value in r.values] == [b"v", None]
    assert all(abs(ts / 1000 - time.time()) < 60 for r in records for ts in r.timestamps)
    source.close()


def test_a_key_lands_where_java_puts_it(log: KafkaLog) -> None:
    sink = log.sink()
    for key in (b"a", b"ab", b"abc"):
        sink.publish(Output("events", key, b""))
    sink.flush()
    expected = [partition_of(key, 4) for key in (b"a", b"ab", b"abc")]
    assert log.ends("events") == {p: expected.count(p) for p in range(4)}


def test_a_message_of_several_megabytes_passes(log: KafkaLog) -> None:
    value = bytes(4_000_000)
    publish(log, 1, value)
    source = log.broadcast_source("events", {})
    assert read(source, 1) == [(1, 0, value)]
    source.close()


def test_a_commit_keeps_its_note_and_can_be_read_without_joining(log: KafkaLog) -> None:
    publish(log, 0, b"a", b"b")
    member = Member(log)
    read(member.source, 2)
    member.source.commit({0: 2}, {0: "checkpoint=1 ts=5"})
    assert member.source.committed([0, 1]) == {0: Committed(2, "checkpoint=1 ts=5")}
    assert log.progress("events", "rank") == {0: Committed(2, "checkpoint=1 ts=5")}
    assert log.progress("events", "train") == {}
    member.source.close()


def test_a_successor_reads_on_from_the_commit(log: KafkaLog) -> None:
    publish(log, 0, b"a", b"b", b"c")
    first = Member(log)
    read(first.source, 3)
    first.source.commit({0: 1}, {})
    first.source.close()
    assert first.calls == [("assigned", [0, 1, 2, 3]), ("revoked", [0, 1, 2, 3])]
    second = Member(log)
    assert read(second.source, 2) == [(0, 1, b"b"), (0, 2, b"c")]
    second.source.close()


def test_a_partition_without_a_start_begins_at_the_beginning(log: KafkaLog) -> None:
    publish(log, 0, b"a", b"b")
    publish(log, 1, b"c")
    member = Member(log, start={0: 1})
    assert sorted(read(member.source, 2)) == [(0, 1, b"b"), (1, 0, b"c")]
    member.source.close()


def test_a_failed_start_is_tried_again_and_nothing_is_read_before(log: KafkaLog) -> None:
    publish(log, 0, b"a")
    member = Member(log)
    member.failures.append(Retryable("the store is away"))

    def failed() -> bool:
        try:
            assert member.source.poll(10, 0.05) == []
        except Retryable:
            return True
        return False

    until(failed)
    assert read(member.source, 1) == [(0, 0, b"a")]
    member.source.close()


@pytest.mark.parametrize("options", [{}, {"group.protocol": "consumer"}], ids=["classic", "consumer"])
def test_a_new_member_gets_a_share_and_gives_it_back(kafka: Kafka, options: dict[str, str]) -> None:
    log = KafkaLog(
        Kafka(
            bootstrap=kafka.bootstrap,
            prefix=kafka.prefix,
            session_timeout_ms=kafka.session_timeout_ms,
            options=options,
        )
    )
    first = Member(log)
    until(lambda: first.source.poll(10, 0.05) == [] and first.owns() == {0, 1, 2, 3})
    second = Member(log)

    def shared() -> bool:
        first.source.poll(10, 0.05)
        second.source.poll(10, 0.05)
        return len(first.owns()) == len(second.owns()) == 2 and not first.owns() & second.owns()

    until(shared)
    for p in range(4):
        publish(log, p, b"x")
    mine = read(first.source, 2) + read(second.source, 2)
    assert sorted(mine) == [(p, 0, b"x") for p in range(4)]
    second.source.close()
    until(lambda: first.source.poll(10, 0.05) is not None and first.owns() == {0, 1, 2, 3})
    first.source.close()
    log.close()


def test_an_offset_that_is_gone_is_a_counted_gap(log: KafkaLog) -> None:
    publish(log, 0, b"a", b"b")
    publish(log, 1, b"c")
    member = Member(log, start={0: 77})
    assert sorted(read(member.source, 3)) == [(0, 0, b"a"), (0, 1, b"b"), (1, 0, b"c")]
    assert member.source.gaps == [Gap("events", 0, 77, 0)]
    member.source.close()


def test_poll_waits_for_the_first_record_only(log: KafkaLog) -> None:
    source = log.broadcast_source("events", {})
    source.poll(1000, 0.5)
    publish(log, 0, b"a")
    began = time.monotonic()
    assert source.poll(1000, 10.0)
    assert time.monotonic() - began < 2.0
    source.close()


def test_a_member_that_was_put_out_cannot_commit(kafka: Kafka) -> None:
    """A member that the coordinator no longer knows, as after a long stop of its process."""
    log = KafkaLog(
        Kafka(bootstrap=kafka.bootstrap, prefix=kafka.prefix, session_timeout_ms=kafka.session_timeout_ms)
    )
    options = {"group.instance.id": "one"}
    static = Kafka(
        bootstrap=kafka.bootstrap,
        prefix=kafka.prefix,
        session_timeout_ms=kafka.session_timeout_ms,
        options=options,
    )
    publish(log, 0, b"a")
    zombie = Member(KafkaLog(static))
    read(zombie.source, 1)
    heir = Member(KafkaLog(static))
    until(lambda: heir.source.poll(10, 0.05) is not None and heir.owns() == {0, 1, 2, 3})
    with pytest.raises(Fatal, match="taken these partitions over"):
        zombie.source.commit({0: 1}, {})
    heir.source.close()


def test_a_log_that_is_closed_leaves_its_groups_like_one_that_died(kafka: Kafka) -> None:
    log = KafkaLog(kafka)
    first = Member(log)
    until(lambda: first.source.poll(10, 0.05) == [] and first.owns() == {0, 1, 2, 3})
    log.close()
    log = KafkaLog(kafka)
    second = Member(log)
    until(lambda: second.source.poll(10, 0.05) == [] and second.owns() == {0, 1, 2, 3})
    assert first.calls == [("assigned", [0, 1, 2, 3])]
    log.close()


def test_the_identity_names_cluster_topic_and_partitions(log: KafkaLog, kafka: Kafka) -> None:
    cluster, topic, count = log.identity("events").split("/")
    assert cluster
    assert (topic, count) == (kafka.topic("events"), "4")


def test_topics_are_listed_without_prefix(log: KafkaLog) -> None:
    log.ping(5.0)
    assert log.topic_partitions() == {"events": 4}


@pytest.mark.kafka
def test_topics_are_created_once_with_their_policies(real_broker: Kafka) -> None:
    log = KafkaLog(real_broker)
    log.create_topics({"items": 1, "events": 9})
    log.create_topics({"items": 1})
    assert log.topic_partitions() == {"items": 1, "events": 4}
    log.close()


@pytest.mark.kafka
def test_a_topic_that_does_not_exist_is_fatal_and_says_how_to_make_it(real_broker: Kafka) -> None:
    log = KafkaLog(Kafka(bootstrap=real_broker.bootstrap, prefix="no.such."))
    with pytest.raises(Fatal, match="liverank topics"):
        log.ends("events")
    member = Member(log)
    with pytest.raises(Fatal, match="liverank topics"):
        until(lambda: bool(member.source.poll(10, 0.1)))
    member.source.close()
