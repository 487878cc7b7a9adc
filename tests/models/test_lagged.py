"""Older models that predict: they are what the model was, and as old as they should be."""

from pathlib import Path

import numpy as np
import pytest

from models.batch import Array
from models.lagged import STEPS, Copy, Lagged
from models.learner import Learner
from tests.models.toy import MONDAY, SHAPE, ids, lists


@pytest.fixture(scope="module")
def learner(graphs: Path) -> Learner:
    learner = Learner(SHAPE, device="cpu", graphs=graphs)
    learner.see(np.repeat(ids(np.arange(1, 120)), 2), {}, MONDAY)
    return learner


def train(learner: Learner, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(5):
        learner.learn(lists(rng, 32))


def said(learner: Learner, copy: Copy, seed: int = 9) -> Array:
    return learner.predict_with(copy, lists(np.random.default_rng(seed), 40)).p


def test_a_copy_predicts_what_the_model_did(learner: Learner) -> None:
    sample = lists(np.random.default_rng(9), 40)
    before, weights = learner.predict(sample).p, learner.weights()
    train(learner, 1)
    learner.see(np.repeat(ids(np.arange(120, 200)), 2), {}, MONDAY)  # these had no row of their own
    copy = Copy(SHAPE, learner.graph(), weights)
    assert said(learner, copy) == pytest.approx(before, abs=1e-5)
    after = learner.predict(sample).p
    assert np.abs(after - before).max() > 0.01
    copy.put(learner.weights())
    assert said(learner, copy) == pytest.approx(after, abs=1e-5)


def test_an_item_that_lost_its_row_is_a_rare_one_again(learner: Learner) -> None:
    train(learner, 2)
    weights = learner.weights()
    with_rows = Copy(SHAPE, learner.graph(), weights)
    rows = {name: getattr(weights, name)[: SHAPE.cold] for name in ("id", "embedding", "bias")}
    without = weights._replace(**rows)
    fresh = said(learner, Copy(SHAPE, learner.graph(), without))
    assert np.abs(said(learner, with_rows) - fresh).max() > 1e-4
    with_rows.put(without)
    assert said(learner, with_rows) == pytest.approx(fresh, abs=1e-7)


def test_rows_after_the_last_one_in_use_are_not_copied(learner: Learner) -> None:
    weights = learner.weights()
    assert len(weights.id) == SHAPE.cold + len(learner.table) < SHAPE.rows


class Ages(Lagged):
    """Copies are the times at which they were taken."""

    def __init__(self, lag: int) -> None:
        super().__init__(SHAPE, lag)
        self.most = 0

    def second(self, now: int) -> int | None:
        """Age of the model after one turn."""
        if self.due(now):
            self.keep(now, now)  # type: ignore[arg-type]
        self.most = max(self.most, len(self))
        self.advance(b"", now)
        return None if self.model is None else now - self.model.taken  # type: ignore[attr-defined]


class Taken:
    """In the place of a `Copy`."""

    def __init__(self, shape: object, graph: bytes, taken: int) -> None:
        self.put(taken)

    def put(self, taken: int) -> None:
        self.taken = taken


@pytest.fixture
def ages(monkeypatch: pytest.MonkeyPatch) -> Ages:
    monkeypatch.setattr("models.lagged.Copy", Taken)
    return Ages(60_000)


def test_a_lagged_model_is_as_old_as_it_should_be_with_few_copies(ages: Ages) -> None:
    seen = [ages.second(MONDAY + s * 1000) for s in range(600)]
    assert seen[59] is None
    known = [age for age in seen[60:] if age is not None]
    assert len(known) == 540
    assert (min(known), max(known)) == (60_000, 60_000 + 60_000 // STEPS - 1000)
    assert ages.most <= STEPS + 1


def test_after_a_gap_in_time_it_is_the_newest_copy_from_before(ages: Ages) -> None:
    for s in range(61):
        ages.second(MONDAY + s * 1000)
    assert ages.second(MONDAY + 3_600_000) == 3_540_000  # the copy of second 60
    assert ages.second(MONDAY + 3_661_000) == 61_000
