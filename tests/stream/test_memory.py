"""Rules of the log in this process."""

from __future__ import annotations

import pytest

from stream.errors import Fatal
from stream.log import Committed, Gap, Output, Positions, Source
from stream.memory import MemoryLog


class Member:
    """Callbacks of a group member that starts where the group has committed."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[int]]] = []

    def assigned(self, source: Source, partitions: list[int]) -> Positions:
        self.calls.append(("assigned", partitions))
        return {p: committed.offset for p, committed in source.committed(partitions).items()}

    def revoked(self, partitions: list[int]) -> None:
        self.calls.append(("revoked", partitions))

    def join(self, log: MemoryLog) -> Source:
        return log.group_source("events", "rank", self.assigned, self.revoked)


def log_with(*counts: int) -> MemoryLog:
    """Partitions of `events` that hold so many records each, valued by their offset."""
    log = MemoryLog({"events": len(counts)}, clock=lambda: 1000.0)
    log.append([Output("events", None, b"%d" % i, p) for p, count in enumerate(counts) for i in range(count)])
    return log


def offsets(source: Source, limit: int = 1000) -> dict[int, list[int]]:
    return {records.partition: records.offsets for records in source.poll(limit, 0)}


def test_a_key_goes_where_java_puts_it() -> None:
    log = MemoryLog({"t": 1000}, clock=lambda: 0.0)
    log.append([Output("t", b"abc", b"")])
    assert log.ends("t")[107] == 1


def test_records_without_a_key_go_round() -> None:
    log = MemoryLog({"t": 3}, clock=lambda: 0.0)
    log.append([Output("t", None, b"")] * 6)
    assert log.ends("t") == {0: 2, 1: 2, 2: 2}


def test_timestamps_are_the_clocks_in_ms() -> None:
    now = 5.0
    log = MemoryLog({"t": 1}, clock=lambda: now)
    log.append([Output("t", None, b"a")])
    now = 6.5
    log.append([Output("t", None, b"b")])
    assert log.broadcast_source("t", {}).poll(10, 0)[0].timestamps == [5000, 6500]


def test_what_is_not_flushed_is_not_there() -> None:
    log = MemoryLog({"t": 1}, clock=lambda: 0.0)
    sink = log.sink()
    sink.publish(Output("t", b"k", b"v"))
    assert log.ends("t") == {0: 0}
    sink.flush()
    sink.flush()
    assert log.ends("t") == {0: 1}


def test_a_full_poll_takes_a_share_of_each_partition_and_no_more_than_the_limit() -> None:
    source = log_with(10, 10).broadcast_source("events", {})
    assert offsets(source, 4) == {0: [0, 1], 1: [0, 1]}
    assert offsets(source, 1) == {1: [2]}
    assert offsets(source, 1) == {0: [2]}


def test_every_record_is_read_once_and_in_order() -> None:
    source = log_with(7, 0, 5).broadcast_source("events", {})
    read: dict[int, list[int]] = {}
    while batch := offsets(source, 2):
        for p, part in batch.items():
            read.setdefault(p, []).extend(part)
    assert read == {0: list(range(7)), 2: list(range(5))}


def test_a_broadcast_starts_where_it_is_told_else_at_the_beginning() -> None:
    assert offsets(log_with(3, 3).broadcast_source("events", {1: 2})) == {0: [0, 1, 2], 1: [2]}


def test_a_member_that_died_is_replaced_and_its_successor_reads_from_what_assigned_says() -> None:
    log = log_with(5)
    dead = Member().join(log)
    dead.poll(10, 0)
    dead.commit({0: 3}, {0: "note"})
    member = Member()
    source = member.join(log)
    assert source.committed([0]) == {0: Committed(3, "note")}
    assert offsets(source) == {0: [3, 4]}
    assert member.calls == [("assigned", [0])]


def test_a_replaced_member_can_neither_read_nor_commit() -> None:
    log = log_with(5)
    zombie = Member().join(log)
    zombie.poll(10, 0)
    Member().join(log)
    with pytest.raises(Fatal, match="taken these partitions over"):
        zombie.commit({0: 5}, {})
    with pytest.raises(Fatal, match="taken these partitions over"):
        zombie.poll(10, 0)
    assert log.progress("events", "rank") == {}


def test_a_member_may_commit_while_it_leaves() -> None:
    log = log_with(5)
    calls: list[list[int]] = []

    def revoked(partitions: list[int]) -> None:
        calls.append(partitions)
        source.commit({0: 4}, {})

    source = log.group_source("events", "rank", lambda _, __: {}, revoked)
    source.poll(10, 0)
    source.close()
    source.close()
    assert calls == [[0]]
    assert log.progress("events", "rank") == {0: Committed(4, "")}


def test_groups_do_not_see_each_others_commits() -> None:
    log = log_with(5)
    Member().join(log).commit({0: 2}, {})
    assert log.progress("events", "train") == {}


@pytest.mark.parametrize(("wanted", "expired"), [(1, 3), (9, 0)], ids=["expired", "of an older log"])
def test_reading_goes_on_at_the_earliest_record_and_says_what_is_missing(wanted: int, expired: int) -> None:
    log = log_with(5)
    log.expire("events", 0, expired)
    source = log.broadcast_source("events", {0: wanted})
    assert offsets(source) == {0: list(range(expired, 5))}
    assert source.gaps == [Gap("events", 0, wanted, expired)]


def test_expired_records_keep_the_offsets_of_the_others() -> None:
    log = log_with(5)
    log.expire("events", 0, 3)
    log.expire("events", 0, 2)
    records = log.broadcast_source("events", {}).poll(10, 0)[0]
    assert (records.offsets, records.values) == ([3, 4], [b"3", b"4"])


def test_outputs_keep_their_headers() -> None:
    log = MemoryLog({"t": 1}, clock=lambda: 0.0)
    output = Output("t", b"k", None, 0, (("reason", b"bad"),))
    log.append([output])
    assert log.outputs("t") == [output]


def test_unknown_topics_and_partitions_are_fatal() -> None:
    log = log_with(1)
    with pytest.raises(Fatal, match="topic nope does not exist; topics are events"):
        log.ends("nope")
    with pytest.raises(Fatal, match="no partition 1"):
        log.append([Output("events", None, b"", 1)])


def test_a_broadcast_has_no_group_to_commit_for() -> None:
    source = log_with(1).broadcast_source("events", {})
    assert source.committed([0]) == {}
    with pytest.raises(Fatal, match="no group"):
        source.commit({0: 1}, {})
