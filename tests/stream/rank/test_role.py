from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.batch import CONTEXTS
from models.learner import Learner
from stream.checkpoint import Checkpoint, Store, pack, unpack
from stream.ids import hash_id
from stream.log import Output, Records
from stream.messages import (
    Click,
    Item,
    ModelUpdate,
    Search,
    decode_outcomes,
    encode_binary,
)  # fmt: skip
from stream.rank import role as module
from stream.rank.role import Rank
from stream.settings import shape_of
from tests.stream.rank.after_prepare import NAMES, events
from tests.stream.rank.stage import SMALL, Stage, T


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Learner:
    """A model that has seen some items."""
    made = Learner(shape_of(SMALL), graphs=tmp_path_factory.mktemp("graphs"), device="cpu")
    ids = np.array([hash_id(name) for name in NAMES], np.uint64)
    for _ in range(3):
        made.see(ids, dict(zip(ids.tolist(), NAMES, strict=True)), T)
    nowhere = np.zeros((30, CONTEXTS), np.uint64)
    made.count_lists(ids, np.zeros(30, np.uint16), np.full(30, T), nowhere)
    history = np.roll(ids, 1)[:, None] * np.array([1, 0, 0, 0], np.uint64)
    made.count_acts(
        ids, np.zeros(30, np.uint16), np.zeros(30, np.uint8), np.ones(30, np.uint8), np.full(30, T), history,
        np.full((30, 4), 5, np.float32), nowhere,
    )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def snapshot(learner: Learner) -> bytes:
    return learner.snapshot()


def _update(n: int, *, slot: str = "fresh", epoch: int = 1, **fields: Any) -> bytes:
    update = ModelUpdate(slot=slot, epoch=epoch, n=n, trained_through=T + n, **fields)
    return encode_binary(update)


def _tell(rank: Rank, *values: bytes | None) -> list[Output]:
    n = len(values)
    return rank.absorb(Records("model", 0, list(range(n)), [T] * n, [None] * n, list(values)), T / 1000)


def _name(stage: Stage, data: bytes, n: int = 0, **fields: Any) -> bytes:
    """Put a snapshot into the store; the update that names it."""
    uri = f"fresh-{n}.model"
    return _update(n, uri=uri, checksum=stage.rank.store.put(uri, data), **fields)


def test_nothing_is_compiled_after_prepare(tmp_path: Path, learner: Learner, snapshot: bytes) -> None:
    (tmp_path / "snapshot").write_bytes(snapshot)
    (tmp_path / "delta").write_bytes(learner.delta(900_000))
    # in a process of its own, where no other test has called a kernel before
    command = [sys.executable, "-m", "tests.stream.rank.after_prepare", str(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True, timeout=200).stdout == ""


def test_preparing_leaves_no_trace(stage: Stage) -> None:
    stage.rank.prepare()
    assert list(stage.rank.shares) == [0]
    assert stage.rank.items.fresh == {}
    assert len(stage.share.visitors) == 0
    assert stage.rank.counts.take(0) == stage.rank.counts.take(-1) == []


def test_a_delta_follows_its_predecessor_only(stage: Stage, learner: Learner, snapshot: bytes) -> None:
    slot, delta = stage.rank.slots["fresh"], learner.delta(900_000)
    _tell(stage.rank, _update(1, payload=delta))
    assert (slot.version, slot.served) == ("0-0", None)
    _tell(stage.rank, _name(stage, snapshot), _update(1, payload=delta))
    assert (slot.version, slot.trained_through) == ("1-1", T + 1)
    _tell(stage.rank, _update(3, payload=delta), _update(1, payload=delta), _update(4, payload=delta))
    assert slot.version == "1-1"
    _tell(stage.rank, _name(stage, snapshot, 4), _update(5, payload=delta))
    assert slot.version == "1-5"


def test_a_new_epoch_begins_with_its_snapshot(stage: Stage, learner: Learner, snapshot: bytes) -> None:
    slot, delta = stage.rank.slots["fresh"], learner.delta(900_000)
    _tell(stage.rank, _name(stage, snapshot, 7))
    _tell(stage.rank, _update(1, epoch=2, payload=delta))
    assert slot.version == "1-7"
    _tell(stage.rank, _name(stage, snapshot, 0, epoch=2), _update(8, epoch=1, payload=delta))
    assert slot.version == "2-0"


def test_of_many_snapshots_only_the_newest_is_read(stage: Stage, snapshot: bytes) -> None:
    gone = [_update(n, uri=f"gone-{n}", checksum=0) for n in range(5)]
    _tell(stage.rank, *gone, _name(stage, snapshot, 5))
    assert stage.rank.slots["fresh"].version == "1-5"


def test_a_snapshot_that_is_gone_or_damaged_is_passed_over(stage: Stage, snapshot: bytes) -> None:
    slot = stage.rank.slots["fresh"]
    _tell(stage.rank, _update(0, uri="gone", checksum=0))
    _tell(stage.rank, _name(stage, b"nonsense", 1))
    _tell(stage.rank, _update(2, uri="fresh-1.model", checksum=5))
    assert (slot.version, slot.served) == ("0-0", None)
    _tell(stage.rank, _name(stage, snapshot, 3), _update(4, payload=b"nonsense"))
    assert slot.version == "1-3"


def test_what_is_no_model_update_is_a_dead_letter(stage: Stage, snapshot: bytes) -> None:
    letters = _tell(
        stage.rank, b"{}", None, _update(0, slot="x", payload=b""), b"\x91" * 5000, _name(stage, snapshot)
    )
    assert [o.topic for o in letters] == ["dead-letters"] * 4
    assert stage.rank.slots["fresh"].version == "1-0"


def test_what_is_no_catalogue_entry_is_a_dead_letter(stage: Stage) -> None:
    values = [b"{", b'{"item_id":"a"}', b'{"item_id":"b","published_at":5}', None, b"[" * 100_000]
    keys: list[bytes | None] = [b"k", b"a", b"b", b"\xff", None]
    records = Records("items", 0, list(range(5)), [T] * 5, keys, values)
    letters = stage.rank.absorb(records, T / 1000)
    assert [dict(o.headers)["offset"] for o in letters] == [b"0", b"2", b"4"]
    assert len(stage.rank.catalogue) == 1


def _checkpoint(stage: Stage, sequence: int) -> Checkpoint:
    state, newest_ts, base = stage.rank.state("rank-0", sequence)
    return Checkpoint(schema=0, identity="", positions={0: 0}, newest_ts=newest_ts, state=state, base=base)


def _restored(stage: Stage, path: Path, *checkpoints: Checkpoint) -> Stage:
    other = Stage(path)
    other.rank.restore("rank-0", [0], [unpack(pack(c), Checkpoint) for c in checkpoints])
    other.offset = stage.offset
    return other


def _assert_alike(one: Stage, other: Stage) -> None:
    """Both do the same with what comes next, and have counted the same."""
    for each in (one, other):
        each.items(*(Item(item_id=name) for name in NAMES))
    for stage in (one, other):
        stage.rank.items.fresh.clear()
        stage.rank.items.forget()
    outputs = [[s.feed(*events(k), b"{") for k in range(30)] for s in (one, other)]
    assert outputs[0] == outputs[1]
    a, b = (s.rank.counts.state(0) for s in (one, other))
    assert {c: sorted(zip(*v.values(), strict=True)) for c, v in a["cubes"].items()} == {
        c: sorted(zip(*v.values(), strict=True)) for c, v in b["cubes"].items()
    }


def test_a_restored_partition_goes_on_as_if_nothing_had_happened(stage: Stage, tmp_path: Path) -> None:
    for k in range(40):
        stage.feed(*events(k), Search(user_id="u", ts=T, query="", event_id=f"e{k}"))
    _assert_alike(stage, _restored(stage, tmp_path / "other", _checkpoint(stage, -1)))


def test_an_increment_on_top_of_a_whole_checkpoint_restores_everything(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INCREMENT_FROM", 5)
    stage.feed(*(Click(user_id=f"x{k}", ts=T, item_id="a") for k in range(200)))
    whole = _checkpoint(stage, -1)
    stage.feed(*events(3))
    assert _checkpoint(stage, 4).base == 4
    stage.feed(*events(4))
    increment = _checkpoint(stage, 4)
    assert (whole.base, increment.base) == (-1, 4)
    assert len(increment.state["visitors"]["rows"]) == 4
    _assert_alike(stage, _restored(stage, tmp_path / "other", whole, increment))


def test_a_checkpoint_is_whole_when_it_would_not_be_much_larger(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.feed(*events(1))
    assert _checkpoint(stage, 3).base == -1  # few visitors
    monkeypatch.setattr(module, "INCREMENT_FROM", 5)
    stage.feed(*(e for k in range(9) for e in events(k)))
    assert _checkpoint(stage, 3).base == -1  # most of them touched


def test_a_checkpoint_is_due_after_so_many_events_or_seconds(stage: Stage) -> None:
    due, limits = stage.rank.checkpoint_due, SMALL.checkpoints
    assert not due("rank-0", 0.0)
    stage.feed(*events(1))
    assert not due("rank-0", limits.seconds - 0.1)
    assert due("rank-0", limits.seconds)
    _checkpoint(stage, -1)
    assert not due("rank-0", 2 * limits.seconds)
    stage.share.since_checkpoint = limits.events
    assert due("rank-0", 2 * limits.seconds)


def test_partitions_are_units_of_their_own(tmp_path: Path) -> None:
    rank = Rank(SMALL, Store(tmp_path))
    assert rank.units([3, 12]) == {"rank-3": [3], "rank-12": [12]}
    for p in (3, 12):
        rank.restore(f"rank-{p}", [p], [])
    rank.drop("rank-3")
    rank.drop("rank-3")
    assert list(rank.shares) == [12]


def test_gauges_say_how_much_is_held(stage: Stage) -> None:
    stage.items(Item(item_id="a"))
    stage.feed(*events(1))
    (message,) = [decode_outcomes(o.value or b"") for o in stage.rank.tick(T / 1000) if o.topic == "outcomes"]
    gauges = message.cubes["gauges"]
    found = dict(zip(gauges["gauge"], gauges["value"], strict=True))
    assert found.items() >= {"catalogue": 1, "visitors": 2, "evicted": 0}.items()


def test_settings_that_change_what_is_remembered_make_another_schema(tmp_path: Path) -> None:
    longer = msgspec.structs.replace(SMALL, features=msgspec.structs.replace(SMALL.features, history=5))
    assert Rank(SMALL, Store(tmp_path)).schema != Rank(longer, Store(tmp_path)).schema
