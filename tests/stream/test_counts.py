"""Counts: cumulative, by block, the same again after a restart."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from stream import counts as counts_module
from stream.checkpoint import pack, unpack
from stream.counts import Counts, split_blocks
from stream.grouping import group
from stream.log import Records
from stream.messages import Outcomes, encode_binary

HEALTH = {"second": 7, "role": "train", "counter": "dead", "reason": "x"}


def rows(messages: list[Outcomes], cube: str) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Fold messages as a reader does, then add blocks up."""
    newest: dict[tuple[Any, ...], tuple[int, tuple[Any, ...]]] = {}
    for message in messages:
        columns = message.cubes.get(cube, {})
        names = list(columns)
        sums = set(counts_module.CUBES[cube].sums)
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(names, values, strict=True))
            key = (message.partition, message.block, *(v for k, v in row.items() if k not in sums))
            if key not in newest or message.version >= newest[key][0]:
                newest[key] = (message.version, tuple(v for k, v in row.items() if k in sums))
    total: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for (_, _, *dims), (_, sums_) in newest.items():
        old = total.get(tuple(dims), (0,) * len(sums_))
        total[tuple(dims)] = tuple(a + b for a, b in zip(old, sums_, strict=True))
    return total


def test_rows_are_cumulative_and_only_changes_are_taken() -> None:
    counts = Counts("train")
    counts.advance(3, 10)
    counts.add(3, "health", HEALTH, {"count": 2})
    counts.add(3, "health", {**HEALTH, "second": 8}, {"count": 1})
    counts.take(3)
    counts.advance(3, 11)
    counts.add(3, "health", HEALTH, {"count": 5})
    [message] = counts.take(3)
    assert message == Outcomes(
        source="train",
        partition=3,
        block=0,
        version=11,
        cubes={"health": {**{k: [v] for k, v in HEALTH.items()}, "count": [7]}},
    )
    assert counts.take(3) == []


def test_a_closed_block_is_sent_once_more_and_forgotten() -> None:
    counts = Counts("rank", block=10)
    counts.advance(0, 9)
    counts.add(0, "health", HEALTH, {"count": 2})
    counts.advance(0, 10)
    counts.add(0, "health", HEALTH, {"count": 3})
    first, second = counts.take(0)
    assert (first.block, first.version, first.cubes["health"]["count"]) == (0, 9, [2])
    assert (second.block, second.version, second.cubes["health"]["count"]) == (1, 10, [3])
    assert counts.state(0)["cubes"]["health"]["count"] == [3]


def test_an_older_offset_does_not_reopen_a_block() -> None:
    counts = Counts("rank", block=10)
    counts.advance(0, 12)
    counts.advance(0, 3)
    counts.add(0, "health", HEALTH, {"count": 1})
    [message] = counts.take(0)
    assert (message.block, message.version) == (1, 12)


def test_readings_replace_instead_of_adding_up() -> None:
    counts = Counts("train")
    for value in (3.0, 5.0):
        counts.add(0, "gauges", {"second": 1, "role": "train", "gauge": "buffer"}, {"value": value})
    assert counts.take(0)[0].cubes["gauges"]["value"] == [5.0]


def test_grouping_agrees_with_a_plain_loop_for_every_kind_of_column() -> None:
    rng = np.random.default_rng(1)
    n = 5000
    dims: list[Any] = [
        rng.integers(1_700_000_000, 1_700_000_400, n),
        [f"item{i}" for i in rng.integers(0, 50, n)],
        rng.choice([0.5, 1.5, np.inf], n),
        rng.integers(0, 2**63, 3, dtype=np.uint64)[rng.integers(0, 3, n)],
        "same",
        rng.integers(-80, 80, n).astype(np.int16),
    ]
    sums: list[Any] = [rng.integers(0, 9, n), 2, rng.random(n), rng.random(n) < 0.5]
    wanted: dict[tuple[Any, ...], list[float]] = {}
    for i in range(n):
        key = tuple(d if isinstance(d, str) else d[i] for d in dims)
        row = wanted.setdefault(key, [0.0] * len(sums))
        for j, s in enumerate(sums):
            row[j] += s if isinstance(s, int) else s[i]
    keys, totals = group(dims, sums)
    got = dict(zip(keys, zip(*totals, strict=True), strict=True))
    assert len(keys) == len(got) == len(wanted)
    for key, row in wanted.items():
        assert got[key] == pytest.approx(row)
    json.dumps(keys)  # plain Python values, whatever the columns were


def test_no_rows_count_nothing() -> None:
    counts = Counts("rank")
    counts.add(0, "health", {**HEALTH, "second": np.zeros(0, np.int64)}, {"count": np.zeros(0)})
    assert counts.take(0) == []


@pytest.mark.parametrize(
    ("dims", "sums"),
    [
        ({"second": 7}, {"count": 1}),
        ({**HEALTH, "other": 1}, {"count": 1}),
        (HEALTH, {"clicks": 1}),
        ({**HEALTH, "second": [1, 2]}, {"count": [1, 2, 3]}),
    ],
)
def test_wrong_columns_are_refused(dims: dict[str, Any], sums: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="columns"):
        Counts("rank").add(0, "health", dims, sums)


def test_replay_from_a_checkpoint_counts_the_same_again() -> None:
    def count(counts: Counts, offset: int) -> list[Outcomes]:
        counts.advance(0, offset)
        counts.add(0, "health", {**HEALTH, "second": offset % 3}, {"count": offset})
        return counts.take(0) if offset % 4 == 3 else []

    once, crashed = Counts("rank", block=8), Counts("rank", block=8)
    sent = [m for offset in range(20) for m in count(once, offset)] + once.take(0)
    resent = [m for offset in range(6) for m in count(crashed, offset)]
    kept = unpack(pack(crashed.state(0)))
    resent += [m for offset in range(6, 12) for m in count(crashed, offset)]
    again = Counts("rank", block=8)
    again.restore(0, kept)
    resent += [m for offset in range(6, 20) for m in count(again, offset)] + again.take(0)
    assert rows(resent, "health") == rows(sent, "health")
    assert sum(n for (n,) in rows(resent, "health").values()) == sum(range(20))


def test_a_checkpoint_keeps_closed_rows_that_nobody_took() -> None:
    counts = Counts("rank", block=10)
    counts.advance(0, 5)
    counts.add(0, "health", HEALTH, {"count": 2})
    counts.advance(0, 15)
    again = Counts("rank", block=10)
    again.restore(0, unpack(pack(counts.state(0))))
    assert again.take(0) == counts.take(0) != []


def test_a_message_stays_below_what_a_broker_takes() -> None:
    counts = Counts("rank")
    ids = [f"{i:0256d}" for i in range(9000)]
    counts.add(0, "items", {"second": 60, "arm": "fresh", "item_id": ids}, {"impressions": 1})
    messages = counts.take(0)
    assert max(len(encode_binary(m)) for m in messages) < 900_000
    assert [i for m in messages for i in m.cubes["items"]["item_id"]] == ids


def test_counts_survive_the_wire() -> None:
    counts = Counts("rank")
    counts.add(
        0, "diversity", {"second": 60, "arm": "a"}, {"lists": np.int64(3), "surprise": np.float32(1.5)}
    )
    [message] = counts.take(0)
    assert msgspec.msgpack.decode(encode_binary(message), type=Outcomes) == message
    assert message.cubes["diversity"]["lists"] == [3]
    assert message.cubes["diversity"]["surprise"] == [1.5]


def test_a_dropped_partition_counts_nothing_more() -> None:
    counts = Counts("rank")
    counts.add(1, "health", HEALTH, {"count": 2})
    counts.drop(1)
    assert counts.take(1) == []
    assert counts.partitions() == []


def test_a_batch_is_cut_at_every_border() -> None:
    offsets = [3, 9, 10, 35]
    records = Records("events", 0, offsets, [1, 2, 3, 4], [b"a", b"b", b"c", b"d"], [b"w", b"x", b"y", b"z"])
    parts = list(split_blocks(records, 10))
    assert [p.offsets for p in parts] == [[3, 9], [10], [35]]
    assert [v for p in parts for v in p.values] == [b"w", b"x", b"y", b"z"]
