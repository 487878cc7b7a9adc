"""The gate, and the versions that it lets through."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.batch import TASKS, Array, Lists
from models.learner import Learner
from models.trainer import Prediction
from stream.checkpoint import Store
from stream.errors import Fatal
from stream.messages import ModelUpdate, decode_model, encode_binary
from stream.settings import Settings, shape_of
from stream.train.buffer import Buffer
from stream.train.join import decode
from stream.train.versions import PATIENCE, Gate, Versions, from_state, to_state
from tests.stream.train.conftest import SMALL
from tests.stream.train.synthetic import T0, labels, lists, message
from tests.stream.train.test_buffer import guess

SHAPE = shape_of(SMALL)
LEARNED = np.arange(20)
"""Lists that each version has just learned."""


class Opinion:
    """A learner that says the same of every item: `p`, of `tasks`; 0.1 of others."""

    def __init__(self, p: float) -> None:
        self.p = p
        self.tasks = [*range(len(TASKS))]
        self.kept = 0

    def keep(self) -> None:
        self.kept += 1

    def predict(self, lists: Lists) -> Prediction:
        n = len(lists.item)
        noise = np.linspace(0, 1e-3, n)
        p = np.full((n, len(TASKS)), 0.1)
        p[:, self.tasks] = self.p
        return Prediction(np.full(n, self.p), p * (1 + noise[:, None]))


def judged(count: int = 40, mature: bool = True) -> Buffer:
    """A buffer of lists, one item of three clicked, all trained and judged."""
    buffer = Buffer(SHAPE, 1000, "fnw")
    add(buffer, 0, count, mature)
    return buffer


def add(buffer: Buffer, first: int, count: int, mature: bool = True) -> None:
    show(buffer, first, count, clicked=1)
    buffer.teach(buffer.take(count))
    buffer.judge(T0)
    if mature:
        buffer.mature(T0)


def show(buffer: Buffer, first: int, count: int, clicked: int) -> None:
    """Lists of three items, `clicked` of them clicked, that are not judged yet."""
    offsets = list(range(first, first + count))
    columns, rows = lists(SHAPE, offsets, T0), labels([(o, k, 0) for o in offsets for k in range(clicked)])
    batch, _ = decode(encode_binary(message(SHAPE, **columns, **rows)), SHAPE, 0)
    n = len(batch.shown.lists.item)
    buffer.append(batch.shown, guess(n), T0)
    buffer.label(batch.labels)


def gate(learner: Opinion, buffer: Buffer) -> Gate:
    return Gate(learner, buffer, np.random.default_rng(0))  # type: ignore[arg-type]


def test_a_version_that_explains_old_lists_worse_is_turned_away() -> None:
    learner = Opinion(0.1)
    it = gate(learner, judged())
    learner.p = 0.6
    verdict = it.judge(LEARNED)
    assert (verdict.accepted, verdict.reason) == (False, "worse")


def test_a_better_version_passes() -> None:
    learner = Opinion(0.6)
    it = gate(learner, judged())
    learner.p = 0.1
    assert it.judge(LEARNED).accepted


def test_a_version_a_little_worse_everywhere_passes() -> None:
    learner = Opinion(0.1)
    it = gate(learner, judged())
    learner.p = 0.098
    verdict = it.judge(LEARNED)
    assert verdict.reason == "worse"  # it is, and certainly
    assert verdict.accepted


def worse_by_degrees(learner: Opinion, it: Gate, share: float, count: int) -> list[bool]:
    """What the gate decides on so many versions, each by a share less sure of what is clicked."""
    decisions = []
    for _ in range(count):
        kept = learner.p
        learner.p *= 1 - share
        decisions.append(it.judge(LEARNED).accepted)
        if not decisions[-1]:
            learner.p = kept
        it.keep()
    return decisions


def test_versions_each_a_little_worse_are_turned_away_when_it_adds_up() -> None:
    learner = Opinion(0.1)
    it = gate(learner, judged())
    assert worse_by_degrees(learner, it, 0.12, 4) == [True] * 4
    assert not all(worse_by_degrees(learner, it, 0.12, 4))
    learner.p *= 0.88
    assert it.judge(LEARNED).reason == "worse by degrees"
    learner.p = 0.15  # what makes up for it passes, and then there is nothing to make up for
    assert it.judge(LEARNED).accepted
    it.keep()
    assert worse_by_degrees(learner, it, 0.12, 4) == [True] * 4


def test_what_is_owed_fades_also_while_versions_are_turned_away() -> None:
    learner = Opinion(0.1)
    it = gate(learner, judged())
    decisions = "".join(".X"[not passed] for passed in worse_by_degrees(learner, it, 0.05, 30))
    assert decisions.endswith("X.X.X")


def test_versions_that_get_worse_as_slowly_as_a_world_drifts_pass() -> None:
    learner = Opinion(0.1)
    it = gate(learner, judged())
    assert all(worse_by_degrees(learner, it, 0.008, 100))


def test_what_may_be_chance_where_clicks_are_rare_does_not_speak_against_a_version() -> None:
    buffer = Buffer(SHAPE, 1000, "fnw")
    show(buffer, 0, 40, clicked=0)
    buffer.judge(T0)
    learner = Opinion(0.010)
    it = gate(learner, buffer)
    learner.p = 0.015
    verdict = it.judge(LEARNED)
    assert verdict.after - verdict.before > 100 * verdict.error
    assert verdict.accepted
    learner.p = 0.1  # 120 times nothing: once in 300,000 cases
    assert not it.judge(LEARNED).accepted


def test_without_judged_lists_nothing_speaks_against() -> None:
    learner = Opinion(0.1)
    it = gate(learner, Buffer(SHAPE, 10))
    learner.p = 0.9
    assert it.judge(LEARNED).accepted


def test_a_version_that_is_not_finite_never_passes() -> None:
    learner = Opinion(0.1)
    it = gate(learner, judged())
    learner.p = float("nan")
    assert [it.judge(LEARNED).reason for _ in range(2 * PATIENCE)] == ["not finite"] * (2 * PATIENCE)


def test_where_the_good_version_is_not_finite_the_other_lists_speak() -> None:
    learner = Opinion(0.1)
    it = gate(learner, judged())
    it._before[3] = np.nan
    learner.p = 0.6
    assert not it.judge(LEARNED).accepted


TURNS = np.arange(40, 50), np.arange(50, 60)
"""Lists of a new world, learned from in turn."""


def refusals(learner: Opinion, it: Gate, learned: tuple[Array, Array], count: int) -> list[bool]:
    """What the gate decides on so many versions that have all learned the same from these lists, in turn."""
    decisions = []
    for k in range(count):
        learner.p = 0.6
        decisions.append(it.judge(learned[k % 2]).accepted)
        if not decisions[-1]:
            learner.p = 0.1
        it.keep()
    return decisions


def test_what_may_yet_be_bought_does_not_speak_against_a_version() -> None:
    learner, buffer = Opinion(0.1), judged(mature=False)
    learner.tasks = [1, 2]
    it = gate(learner, buffer)
    learner.p = 0.6
    assert it.judge(LEARNED).accepted
    learner.p = 0.1
    buffer.mature(T0)
    it.keep()
    learner.p = 0.6
    assert not it.judge(LEARNED).accepted


def test_the_gate_gives_way_when_everything_looks_worse_for_long() -> None:
    learner, buffer = Opinion(0.1), judged()
    it = gate(learner, buffer)
    show(buffer, 300, 20, clicked=3)  # everything is clicked now
    assert refusals(learner, it, TURNS, PATIENCE + 1) == [False] * PATIENCE + [True]
    learner.p = 0.9  # lists from before the change do not speak any more
    assert it.judge(LEARNED).accepted
    it.keep()
    learner.p = 0.3
    add(buffer, 500, 40)
    it.keep()
    learner.p = 0.9  # those after it do
    assert not it.judge(LEARNED).accepted


def test_the_gate_never_gives_way_to_a_model_that_is_worse_also_on_what_is_new() -> None:
    learner, buffer = Opinion(0.1), judged()
    it = gate(learner, buffer)
    show(buffer, 300, 20, clicked=0)
    assert not any(refusals(learner, it, TURNS, 3 * PATIENCE))


def test_the_gate_never_gives_way_to_a_model_that_knows_better_only_what_it_learned() -> None:
    learner, buffer = Opinion(0.1), judged()
    it = gate(learner, buffer)
    show(buffer, 300, 20, clicked=3)
    both = np.arange(40, 60)
    assert not any(refusals(learner, it, (both, both), 3 * PATIENCE))


def test_objections_that_are_not_in_a_row_do_not_add_up() -> None:
    learner = Opinion(0.1)
    it = gate(learner, judged())
    for _ in range(3 * PATIENCE):
        learner.p = 0.6
        assert not it.judge(LEARNED).accepted
        learner.p = 0.1
        assert it.judge(LEARNED).accepted


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


Make = Callable[[Settings], Learner]


def updates(*outputs: Any) -> list[ModelUpdate]:
    return [decode_model(output.value) for output in outputs]


def test_every_start_begins_a_later_epoch(store: Store, make: Make) -> None:
    learner = make(SMALL)
    assert [Versions(learner, store, None).epoch for _ in range(3)] == [1, 2, 3]


def test_deltas_count_up_and_a_snapshot_has_the_number_of_the_last(store: Store, make: Make) -> None:
    learner = make(SMALL)
    versions = Versions(learner, store, None)
    zero, one, two, whole = updates(
        versions.snapshot(5), versions.delta(6), versions.delta(7), versions.snapshot(7)
    )
    assert [(u.slot, u.epoch, u.n, u.trained_through) for u in (zero, one, two, whole)] == [
        ("fresh", 1, 0, 5), ("fresh", 1, 1, 6), ("fresh", 1, 2, 7), ("fresh", 1, 2, 7),
    ]  # fmt: skip
    assert one.payload
    assert one.uri is None
    assert whole.uri is not None
    assert store.get(whole.uri, whole.checksum) == learner.snapshot()


def test_old_snapshots_are_removed_but_never_the_frozen_one(store: Store, make: Make) -> None:
    versions = Versions(make(SMALL), store, None)
    versions.freeze(0)
    for _ in range(6):
        versions.delta(0)
        versions.snapshot(0)
    names = sorted(path.name for path in store.path.glob("*.model"))
    assert names == [
        "fresh-00000001-00000004.model", "fresh-00000001-00000005.model", "fresh-00000001-00000006.model",
        "frozen-00000001-00000000.model",
    ]  # fmt: skip


def test_who_was_replaced_publishes_nothing(store: Store, make: Make) -> None:
    learner = make(SMALL)
    old = Versions(learner, store, None)
    Versions(learner, store, None)
    with pytest.raises(Fatal, match="epoch 2 is newer than ours, 1"):
        old.delta(0)


def test_the_frozen_model_is_found_again(store: Store, make: Make) -> None:
    learner = make(SMALL)
    before = Versions(learner, store, None)
    before.freeze(9)
    again = Versions(learner, store, from_state(to_state(before.frozen)))
    assert again.frozen == before.frozen
    assert again.shadow is not None


def test_a_lost_frozen_model_is_frozen_anew(
    store: Store, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    learner = make(SMALL)
    before = Versions(learner, store, None)
    before.freeze(9)
    next(store.path.glob("frozen-*")).unlink()
    assert Versions(learner, store, before.frozen).frozen is None
    assert "the frozen model is lost" in caplog.text
