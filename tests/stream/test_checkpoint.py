from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.checkpoint import KEPT, Checkpoint, Store, pack, unpack
from stream.errors import Fatal, Retryable

LOG = "cluster/events/4"


def _checkpoint(value: Any = 0, base: int = -1, **fields: Any) -> Checkpoint:
    given = {"schema": 1, "identity": LOG, "positions": {0: 5}, "newest_ts": 9} | fields
    return Checkpoint(state={"value": value}, base=base, **given)


def _values(store: Store, unit: str = "rank-0") -> list[Any]:
    return [c.state["value"] for c in store.read(unit, 1, LOG)]


def _files(store: Store) -> list[str]:
    return sorted(p.name for p in store.path.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "deep" / "down")


def test_plain_data_and_arrays_come_back_as_they_went() -> None:
    kind = np.dtype([("a", np.uint8), ("b", np.float64)], align=True)
    records = np.zeros((2, 3), kind)
    records["b"][1, 2] = 2.5
    value = {
        "records": records, "empty": np.zeros((0, 4), np.int16), "text": "ü", "none": None,
        "nested": [{"x": np.arange(3, dtype=np.uint64)}],
    }  # fmt: skip
    found = unpack(pack(value))
    assert found["records"].tolist() == records.tolist()
    assert (found["records"].dtype.fields["b"][1], found["records"].dtype.itemsize) == (8, 16)
    assert found["empty"].shape == (0, 4)
    assert (found["text"], found["none"]) == ("ü", None)
    found["nested"][0]["x"][0] = 7  # writable


def test_what_a_checkpoint_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot hold object"):
        pack({"x": object()})


def test_the_newest_checkpoint_is_read(store: Store) -> None:
    assert _values(store) == []
    for value in range(5):
        store.write("rank-0", _checkpoint(value), 1)
    assert _values(store) == [4]
    assert len(_files(store)) == KEPT
    (found,) = store.read("rank-0", 1, LOG)
    assert (found.positions, found.newest_ts) == ({0: 5}, 9)


def test_an_increment_comes_with_its_whole_checkpoint(store: Store) -> None:
    number = store.write("rank-0", _checkpoint("whole"), 1)
    for value in "abc":
        assert store.write("rank-0", _checkpoint(value, base=number), 1) == number
    assert _values(store) == ["whole", "c"]
    assert len(_files(store)) == 2


def test_the_fallback_is_a_whole_checkpoint_with_its_last_increment(store: Store) -> None:
    first = store.write("rank-0", _checkpoint("first"), 1)
    store.write("rank-0", _checkpoint("first+", base=first), 1)
    store.write("rank-0", _checkpoint("second"), 1)
    assert len(_files(store)) == 3
    _damage(store, _files(store)[-1])
    assert _values(store) == ["first", "first+"]


def _damage(store: Store, name: str) -> None:
    path = store.path / name
    path.write_bytes(path.read_bytes()[:-1])


def test_a_damaged_increment_leaves_the_whole_checkpoint(store: Store) -> None:
    number = store.write("rank-0", _checkpoint("whole"), 1)
    store.write("rank-0", _checkpoint("more", base=number), 1)
    _damage(store, _files(store)[-1])
    assert _values(store) == ["whole"]


def test_an_increment_without_its_whole_checkpoint_is_of_no_use(store: Store) -> None:
    store.write("rank-0", _checkpoint("old"), 1)
    number = store.write("rank-0", _checkpoint("whole"), 1)
    store.write("rank-0", _checkpoint("more", base=number), 1)
    _damage(store, _files(store)[-2])
    assert _values(store) == ["old"]


@pytest.mark.parametrize("content", [b"", b"abc", b"\x00" * 100, b"\xff" * 4 + b"\x93"])
def test_what_is_no_checkpoint_is_passed_over(store: Store, content: bytes) -> None:
    store.write("rank-0", _checkpoint("good"), 1)
    (store.path / "rank-0-00000001-0000000009-0000000000.checkpoint").write_bytes(content)
    (store.path / "rank-0-nonsense.checkpoint").write_bytes(content)
    assert _values(store) == ["good"]


@pytest.mark.parametrize("fields", [{"schema": 2}, {"identity": "another"}, {"format": 99}])
def test_a_checkpoint_of_something_else_is_passed_over(store: Store, fields: dict[str, Any]) -> None:
    store.write("rank-0", _checkpoint("good"), 1)
    store.write("rank-0", _checkpoint("other", **fields), 1)
    assert _values(store) == ["good"]


def test_units_do_not_see_each_other(store: Store) -> None:
    store.write("rank-1", _checkpoint("one"), 1)
    store.write("rank-10", _checkpoint("ten"), 1)
    assert (_values(store, "rank-1"), _values(store, "rank-10"), _values(store)) == (["one"], ["ten"], [])


def test_a_lower_epoch_neither_wins_nor_removes(store: Store) -> None:
    old, new = store.claim("rank-0"), store.claim("rank-0")
    number = store.write("rank-0", _checkpoint("old"), old)
    first = store.write("rank-0", _checkpoint("new"), new)
    store.write("rank-0", _checkpoint("new+", base=first), new)
    store.write("rank-0", _checkpoint("late", base=number), old)
    for value in range(5):
        store.write("rank-0", _checkpoint(value), old)
    assert _values(store) == ["new", "new+"]


def test_every_claim_gets_a_higher_epoch(store: Store) -> None:
    assert [store.claim("train") for _ in range(5)] == [1, 2, 3, 4, 5]
    assert (store.newest_epoch("train"), store.newest_epoch("rank-0")) == (5, 0)
    assert len(_files(store)) == KEPT


def test_a_claim_is_above_what_has_been_written(store: Store) -> None:
    store.write("rank-0", _checkpoint(), 7)
    assert store.claim("rank-0") == 8


def test_of_two_who_claim_at_once_only_one_gets_the_epoch(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.claim("train")
    monkeypatch.setattr(store, "newest_epoch", lambda unit: 0)
    assert store.claim("train") == 2


def test_what_somebody_left_who_died_while_writing_is_removed(store: Store) -> None:
    left = store.path / ".rank-0-00000001-0000000000-0000000000.checkpoint.4711"
    being_written = store.path / ".rank-0-00000002-0000000000-0000000000.checkpoint.4712"
    left.write_bytes(b"half")
    being_written.write_bytes(b"half")
    store.write("rank-0", _checkpoint("good"), 1)
    assert (left.exists(), being_written.exists()) == (False, True)
    assert _values(store) == ["good"]


def test_files_come_back_as_they_went_or_not_at_all(store: Store) -> None:
    checksum = store.put("a", b"hello")
    assert store.get("a", checksum) == b"hello"
    with pytest.raises(Retryable, match="damaged"):
        store.get("a", checksum + 1)
    with pytest.raises(Retryable, match="cannot read b"):
        store.get("b", checksum)


def test_pruning_keeps_the_newest_by_name(store: Store) -> None:
    for name in ("fresh-3", "fresh-1", "fresh-2", "frozen-1"):
        store.put(name, b"")
    store.prune("fresh-", 2)
    assert _files(store) == ["fresh-2", "fresh-3", "frozen-1"]


def test_a_disk_that_refuses_can_be_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Retryable, match=r"cannot write rank-0.*No space left"):
        store.write("rank-0", _checkpoint(), 1)
    assert _files(store) == []


def test_a_store_that_is_gone_can_be_tried_again(store: Store) -> None:
    store.path.rmdir()
    with pytest.raises(Retryable, match="cannot write"):
        store.claim("train")
    assert store.read("rank-0", 1, LOG) == []


def test_a_store_that_cannot_be_made_stops_the_process(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Fatal, match="checkpoint store"):
        Store(tmp_path / "file" / "store")
