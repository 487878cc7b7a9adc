"""Learner and Served: what rank holds is what train has learned, along any chain of deltas."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from models.batch import CONTEXTS, Array, Lists, Shape
from models.delta import decode_delta
from models.learner import Learner
from models.lora import FACTORS
from models.policy import HEADS, POLICIES
from models.quality import auc, histogram
from models.ranker import COUNTED
from models.served import PRIOR, Served
from models.statistics import CLICKS_SHORT, IMPRESSIONS_SHORT, bucket_in
from tests.models.toy import MONDAY, SHAPE, ids, lists

BUDGET = 900_000


def live(learner: Learner, rng: np.random.Generator, batches: int, ts: int = MONDAY) -> float:
    """Go through some of the stream, as the train role does; return the last loss."""
    loss = 0.0
    for k in range(batches):
        batch = lists(rng, 16)
        now = ts + 1000 * k
        named = {int(i): f"item-{int(i) % 1000}" for i in batch.item[:4]}
        learner.see(np.concatenate([batch.item, batch.history.ravel()]), named, now)
        learner.observe(batch.features)
        act(learner, batch, now)
        loss = learner.learn(batch)
    return loss


def act(learner: Learner, batch: Lists, now: int) -> None:
    nowhere = np.zeros((len(batch.item), CONTEXTS), np.uint64)
    learner.count_lists(batch.item, batch.category, np.full(len(batch.item), now), nowhere)
    at = np.flatnonzero(batch.labels & 1)
    of = at // 8
    task, listed = np.zeros(len(at), np.uint8), np.ones(len(at), np.uint8)
    ts = np.full(len(at), now)
    history, age = batch.history[of], batch.age[of]
    learner.count_acts(batch.item[at], batch.category[at], task, listed, ts, history, age, nowhere[at])


def fresh(graphs: Path, seed: int = 1, policy: str = "full") -> Learner:
    return Learner(SHAPE, seed=seed, device="cpu", policy=policy, graphs=graphs)


def same_scores(learner: Learner, served: Served, batch: Lists) -> None:
    mine, theirs = learner.predict(batch), learner.predict_with(served, batch)
    np.testing.assert_allclose(theirs.score, mine.score, atol=1e-5)
    np.testing.assert_allclose(theirs.p, mine.p, atol=1e-5)


def same_rows(one: Served, other: Served) -> None:
    owned = one.table.ids != 0
    owned[: SHAPE.cold] = True
    assert one.table.ids.tolist() == other.table.ids.tolist()
    for name, array in one.rows.items():
        rows = owned if len(array) == SHAPE.rows else slice(None)
        np.testing.assert_array_equal(array[rows], other.rows[name][rows], err_msg=name)
    assert [n for n, o in zip(one.names, owned, strict=True) if o] == [
        n for n, o in zip(other.names, owned, strict=True) if o
    ]
    np.testing.assert_array_equal(one.trending, other.trending)
    np.testing.assert_array_equal(one.prior, other.prior)


def test_snapshot_serves_what_was_learned(graphs: Path) -> None:
    rng, learner = np.random.default_rng(0), fresh(graphs)
    live(learner, rng, 5)
    same_scores(learner, Served.load(learner.snapshot(), SHAPE), lists(rng, 20))


def dense_of(delta: bytes) -> set[str]:
    """Learned dense weights that a delta holds."""
    return {*decode_delta(delta, SHAPE.schema).dense} - {*COUNTED, PRIOR}


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is young for more than three steps."""
    monkeypatch.setattr("models.policy.WARM", 3)


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("policy", POLICIES)
def test_deltas_hold_what_a_policy_teaches(policy: str, graphs: Path) -> None:
    rng, learner = np.random.default_rng(0), fresh(graphs, policy=policy)
    live(learner, rng, 4)
    every = dense_of(learner.delta(BUDGET))
    live(learner, rng, 2, MONDAY + 10_000)
    taught = dense_of(learner.delta(BUDGET))
    expected = {
        "full": every,
        "dynamic": every,
        "sparse": set(),
        "head": {*HEADS},
        "lora": {*HEADS, *FACTORS},
    }
    assert taught == expected[policy]
    assert dense_of(learner.delta(BUDGET)) == set()


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_served_follows_every_policy(policy: str, graphs: Path) -> None:
    rng, learner = np.random.default_rng(0), fresh(graphs, policy=policy)
    served = Served.load(learner.snapshot(), SHAPE)
    for k in range(4):
        live(learner, rng, 3, MONDAY + 10_000 * k)
        served.apply(learner.delta(BUDGET))
        same_scores(learner, served, lists(rng, 20))
    live(learner, rng, 3, MONDAY + 50_000)
    late = Served.load(learner.snapshot(), SHAPE)  # there are changes that no delta has told of yet
    delta = learner.delta(BUDGET)
    for each in (served, late, late.copy()):
        each.apply(delta)
        same_scores(learner, each, lists(rng, 20))


def test_weights_that_go_back_are_sent_again(graphs: Path) -> None:
    rng, learner = np.random.default_rng(0), fresh(graphs)
    served = Served.load(learner.snapshot(), SHAPE)
    live(learner, rng, 2)
    learner.keep()
    served.apply(learner.delta(BUDGET))
    live(learner, rng, 2)
    served.apply(learner.delta(BUDGET))
    learner.rollback()
    served.apply(learner.delta(BUDGET))
    same_scores(learner, served, lists(rng, 20))


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_gives_the_same_bytes_again_and_after_a_restart(policy: str, graphs: Path) -> None:
    def go_on(learner: Learner) -> bytes:
        live(learner, np.random.default_rng(1), 4, MONDAY + 10_000)
        return learner.state()

    def run() -> Learner:
        learner = fresh(graphs, policy=policy)
        live(learner, np.random.default_rng(0), 4)
        return learner

    other = fresh(graphs, policy=policy)
    other.restore(run().state())
    assert go_on(run()) == go_on(run()) == go_on(other)


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize(("before", "after"), [("lora", "full"), ("full", "lora"), ("sparse", "dynamic")])
def test_a_policy_takes_over_from_another(before: str, after: str, graphs: Path) -> None:
    rng, one, other = np.random.default_rng(0), fresh(graphs, policy=before), fresh(graphs, policy=after)
    live(one, rng, 8)
    other.restore(one.state())
    batch = lists(rng, 20)
    np.testing.assert_allclose(other.predict(batch).score, one.predict(batch).score, atol=1e-5)
    live(other, rng, 2, MONDAY + 10_000)
    same_scores(other, Served.load(other.snapshot(), SHAPE), batch)


def test_chain_of_deltas_equals_snapshot(graphs: Path) -> None:
    rng, learner = np.random.default_rng(0), fresh(graphs)
    served = Served.load(learner.snapshot(), SHAPE)
    for k in range(4):
        live(learner, rng, 3, MONDAY + 10_000 * k)
        served.apply(learner.delta(BUDGET))
        same_scores(learner, served, lists(rng, 20))
    same_rows(served, Served.load(learner.snapshot(), SHAPE))


def test_copy_stays_as_it_is_until_it_is_written_over(graphs: Path) -> None:
    rng, learner = np.random.default_rng(0), fresh(graphs)
    served, batch = Served.load(learner.snapshot(), SHAPE), lists(rng, 20)
    live(learner, rng, 3)
    served.apply(learner.delta(BUDGET))
    copy, before = served.copy(), learner.predict(batch)
    same_rows(copy, served)
    live(learner, rng, 3, MONDAY + 10_000)
    served.apply(learner.delta(BUDGET))
    kept = learner.predict_with(copy, batch)
    np.testing.assert_allclose(kept.p, before.p, atol=1e-5)
    assert abs(kept.p - learner.predict(batch).p).max() > 1e-3
    assert served.copy(copy) is copy
    same_rows(copy, served)
    same_scores(learner, copy, batch)


def test_deltas_that_do_not_fit_catch_up(graphs: Path) -> None:
    rng, learner = np.random.default_rng(0), fresh(graphs)
    served = Served.load(learner.snapshot(), SHAPE)
    live(learner, rng, 5)
    dense = sum(array.nbytes for array in learner.trainer.dense().values())
    budget = dense + 8_192 + 8 * 500 + 6_000
    deltas = [learner.delta(budget) for _ in range(40)]
    assert max(map(len, deltas)) <= budget
    for delta in deltas:
        served.apply(delta)
    same_rows(served, Served.load(learner.snapshot(), SHAPE))


def test_rows_that_change_hands_arrive_with_their_new_values(graphs: Path) -> None:
    rng, learner = np.random.default_rng(0), fresh(graphs)
    served = Served.load(learner.snapshot(), SHAPE)
    for k in range(6):  # more ids than rows
        learner.see(np.repeat(ids(np.arange(1000 * k + 300, 1000 * k + 600)), 2), {}, MONDAY)
        live(learner, rng, 2, MONDAY + 10_000 * k)
        served.apply(learner.delta(BUDGET))
    same_scores(learner, served, lists(rng, 20))
    same_rows(served, Served.load(learner.snapshot(), SHAPE))


def test_evicted_rows_are_forgotten(graphs: Path) -> None:
    rng, learner = np.random.default_rng(0), fresh(graphs)
    live(learner, rng, 5)
    old = learner.table.ids.copy()
    assert learner.items.stats[SHAPE.cold :].any()
    for k in range(3):
        crowd = ids(np.arange(1000, 1000 + SHAPE.rows) + 1000 * k)
        learner.see(np.repeat(crowd, 2), {}, MONDAY + 10_000)
    gone = np.flatnonzero((old != 0) & (learner.table.ids != old))
    assert len(gone) > 100
    assert not learner.items.stats[gone].any()
    assert not learner.items.first_seen[gone].any()
    assert not any(row in learner.names.of_row for row in gone)
    assert not learner.trainer.items.state()["square.embedding"][gone].any()
    learner.pairs.refresh()
    assert not learner.pairs.near[gone].any()


def test_name_that_comes_after_its_row_is_shipped(graphs: Path) -> None:
    learner = fresh(graphs)
    one = ids(np.array([5, 5]))
    learner.see(one, {}, MONDAY)
    learner.count_lists(one, np.zeros(2, np.uint16), np.full(2, MONDAY), np.zeros((2, CONTEXTS), np.uint64))
    served = Served.load(learner.snapshot(), SHAPE)
    served.apply(learner.delta(BUDGET))
    learner.see(one, {int(one[0]): "late"}, MONDAY)
    served.apply(learner.delta(BUDGET))
    row = int(served.table.lookup(one)[0])
    assert served.names[row] == "late"
    assert served.rows["stats"][row, 0] == 2


def test_name_comes_back_with_its_item(graphs: Path) -> None:
    learner = fresh(graphs)
    one = ids(np.array([5, 5]))
    learner.see(one, {int(one[0]): "shoe"}, MONDAY)
    for k in range(3):
        learner.see(np.repeat(ids(np.arange(1000, 1500) + 1000 * k), 2), {}, MONDAY)
    assert learner.table.lookup(one).tolist() == [-1, -1]
    learner.see(one, {}, MONDAY)
    assert learner.names.of_row[int(learner.table.lookup(one)[0])] == "shoe"


def test_same_input_gives_the_same_bytes(graphs: Path) -> None:
    def run() -> tuple[bytes, bytes]:
        learner = fresh(graphs)
        live(learner, np.random.default_rng(0), 5)
        return learner.snapshot(), learner.delta(BUDGET)

    assert run() == run()


def test_restored_learner_goes_on_as_if_nothing_happened(graphs: Path) -> None:
    rng, learner = np.random.default_rng(0), fresh(graphs)
    live(learner, rng, 5)
    other = fresh(graphs, seed=2)
    live(other, np.random.default_rng(9), 2)  # whatever it held is gone
    other.restore(learner.state())
    again = np.random.default_rng(3)
    here = live(learner, again, 5, MONDAY + 20_000)
    there = live(other, np.random.default_rng(3), 5, MONDAY + 20_000)
    assert here == there
    assert learner.snapshot() == other.snapshot()
    assert learner.state() == other.state()


def test_rollback_returns_to_the_last_good_weights(graphs: Path) -> None:
    rng, learner = np.random.default_rng(0), fresh(graphs)
    live(learner, rng, 5)
    learner.keep()
    served = Served.load(learner.snapshot(), SHAPE)
    served.apply(learner.delta(BUDGET))
    probe = lists(rng, 20)
    good = learner.predict(probe)
    for _ in range(5):
        learner.learn(lists(rng, 16), learning_rate=1.0)
    assert np.abs(learner.predict(probe).score - good.score).max() > 1
    learner.rollback()
    np.testing.assert_array_equal(learner.predict(probe).score, good.score)
    served.apply(learner.delta(BUDGET))
    same_scores(learner, served, probe)


def test_rollback_cleans_rows_given_away_meanwhile(graphs: Path) -> None:
    rng, learner = np.random.default_rng(0), fresh(graphs)
    live(learner, rng, 5)
    learner.keep()
    late = ids(np.arange(5000, 5010))
    cold = late % np.uint64(SHAPE.cold)
    good = learner.trainer.rows()["embedding"][cold].copy()
    for _ in range(5):
        batch = lists(rng, 16)
        batch.item[:10] = late
        learner.learn(batch, learning_rate=1.0)
    learner.see(np.repeat(late, 2), {}, MONDAY)
    rows = learner.table.lookup(late)
    assert np.abs(learner.trainer.rows()["embedding"][rows] - good).max() > 0.1
    learner.rollback()
    np.testing.assert_array_equal(learner.trainer.rows()["embedding"][rows], good)


def test_state_of_another_shape_is_refused(graphs: Path) -> None:
    state = fresh(graphs).state()
    other = Learner(Shape(rows=512, cold=64, categories=32, width=4, hidden=8, history=6), device="cpu")
    with pytest.raises(ValueError, match="not a state of this learner: schema"):
        other.restore(state)


def test_damaged_state_is_refused(graphs: Path) -> None:
    learner = fresh(graphs)
    with pytest.raises(ValueError, match="not a state of this learner"):
        learner.restore(learner.state()[:1000])


def test_delta_is_no_snapshot(graphs: Path) -> None:
    learner = fresh(graphs)
    with pytest.raises(ValueError, match="not a snapshot"):
        Served.load(learner.delta(BUDGET), SHAPE)


def test_delta_of_another_shape_is_refused(graphs: Path) -> None:
    learner = fresh(graphs)
    served = Served.load(learner.snapshot(), SHAPE)
    other = Learner(Shape(rows=512, cold=64, categories=32, width=4, hidden=8, history=6), device="cpu")
    with pytest.raises(ValueError, match="use equal settings"):
        served.apply(other.delta(BUDGET))


def test_preference_is_learned_in_a_few_hundred_steps(graphs: Path) -> None:
    rng, learner = np.random.default_rng(0), fresh(graphs)

    def quality() -> float:
        probe = lists(np.random.default_rng(77), 200)
        return auc(histogram(learner.predict(probe).p[:, 0], probe.labels & 1))

    before = quality()
    live(learner, rng, 500)
    assert before < 0.6
    assert quality() > 0.8


def test_trending_names_what_is_touched_most(graphs: Path) -> None:
    learner = fresh(graphs)
    pair = ids(np.array([1, 2]))
    learner.see(np.repeat(pair, 2), {}, MONDAY)
    items: Array = ids(np.array([2, 2, 2, 1]))
    zeros, none = np.zeros(4, np.uint8), np.zeros((4, SHAPE.history))
    learner.count_acts(
        items, zeros.astype(np.uint16), zeros, zeros, np.full(4, MONDAY), none.astype(np.uint64), none - 1,
        np.zeros((4, CONTEXTS), np.uint64),
    )  # fmt: skip
    assert Served.load(learner.snapshot(), SHAPE).trending.tolist() == ids(np.array([2, 1])).tolist()


def test_categories_are_counted_and_served_in_each_context(graphs: Path) -> None:
    learner = fresh(graphs)
    item, category, ts = ids(np.array([1, 2])), np.array([3, 4], np.uint16), np.full(2, MONDAY)
    context = np.array([[700, 800, 0, 0], [700, 0, 0, 0]], np.uint64)
    served = Served.load(learner.snapshot(), SHAPE)
    learner.count_lists(item, category, ts, context)
    click, history = np.zeros(1, np.uint8), np.zeros((1, SHAPE.history))
    learner.count_acts(
        item[:1], category[:1], click, click + 1, ts[:1], history.astype(np.uint64), history - 1, context[:1]
    )
    served.apply(learner.delta(BUDGET))
    stats = served.rows["context_stats"]
    counted = {
        (int(c), int(k)): stats[bucket_in(c, k, SHAPE.categories)][[IMPRESSIONS_SHORT, CLICKS_SHORT]].tolist()
        for c, k in itertools.product(context[0, :2], category)
    }
    assert counted == {(700, 3): [1, 1], (800, 3): [1, 1], (700, 4): [1, 0], (800, 4): [0, 0]}
    assert stats[:, IMPRESSIONS_SHORT].sum() == 3
