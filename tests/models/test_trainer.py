from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.batch import FEATURE, Array, Lesson
from models.graphs import roomy
from models.lora import FACTORS
from models.policy import HEADS, POLICIES
from models.ranker import COUNTED
from models.table import Table
from models.tensors import batch_of
from models.trainer import Trainer
from tests.models.toy import ITEMS, SHAPE, ids, lists

MANY = np.full((900, 3), 0.01), np.zeros((900, 3)), np.ones((900, 3), np.int64)
"""What was said of items, with which levels, and that it is due."""
MANY_CLICKS, MANY_CARTS = (
    (*MANY, np.array(came), np.array([[9, 9], [9, 9]]), np.zeros(3)) for came in ([900, 9, 9], [9, 900, 9])
)


def trainer(seed: int = 0, device: str = "cpu", policy: str = "full", **how: bool) -> Trainer:
    table = Table(SHAPE.rows)
    table.put(ids(np.arange(1, ITEMS + 1)), np.arange(SHAPE.cold, SHAPE.cold + ITEMS))
    return Trainer(SHAPE, table, seed=seed, device=device, policy=policy, **how)


def learned(t: Trainer, count: int = 3, again: bool = False) -> set[str]:
    """Dense weights that change in so many steps, after some in which all of them do."""
    rng = np.random.default_rng(0)
    for _ in range(4):  # conversions are rare
        t.learn(lists(rng, 32))
    before = t.parts()
    for _ in range(count):
        t.learn(lists(rng, 32), again=again)
    return {name for name, array in t.parts().items() if (array != before[name]).any()} - {*COUNTED}


def moved(t: Trainer, before: dict[str, Array]) -> set[str]:
    return {name for name, array in t.rows().items() if (array != before[name]).any()}


def test_learning_is_deterministic() -> None:
    def run() -> list[float]:
        t, rng = trainer(), np.random.default_rng(0)
        t.observe(lists(rng, 50).features)
        return [t.learn(lists(rng, 16)) for _ in range(10)]

    assert run() == run()


@pytest.mark.parametrize("policy", ["full", "head", "lora"])
def test_compiled_steps_are_those_of_torch(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.policy.WARM", 1)
    mine, theirs = trainer(policy=policy), trainer(policy=policy)
    monkeypatch.setattr(theirs, "_slopes", theirs._loss)
    rng = np.random.default_rng(0)
    for again in (False, True, False, False, True):
        batch = lists(rng, 32)
        for t in (mine, theirs):
            t.observe(batch.features)
        losses = [t.learn(batch, 0.001, again=again) for t in (mine, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for a, b in ((mine.parts(), theirs.parts()), (mine.rows(), theirs.rows())):
        for name, array in a.items():
            np.testing.assert_allclose(array, b[name], rtol=0, atol=2e-4, err_msg=name)


def test_seed_matters() -> None:
    batch = lists(np.random.default_rng(0), 16)
    assert trainer(0).learn(batch) != trainer(1).learn(batch)


def test_rollback_goes_on_from_what_was_served_not_from_the_step_that_its_mean_hides() -> None:
    t, rng = trainer(), np.random.default_rng(0)
    for _ in range(20):
        t.learn(lists(rng, 16))
    t.learn(lists(rng, 16), learning_rate=0.5)
    t.keep()
    good = t.dense()
    t.learn(lists(rng, 16))
    t.rollback()
    t.learn(lists(rng, 16), learning_rate=0.0)
    for name in ("encode", "deep1", "deep3"):
        np.testing.assert_allclose(t.dense()[name], good[name], atol=1e-6)


def test_step_that_is_not_finite_is_not_taken() -> None:
    t, rng = trainer(), np.random.default_rng(0)
    before = t.state()
    t.rows()["bias"][:] = np.nan
    assert np.isnan(t.learn(lists(rng, 16)))
    t.rows()["bias"][:] = before["items.bias"]
    for name, array in t.state().items():
        if "place_share" not in name:
            np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_lists_learned_again_move_dense_weights_and_no_rows() -> None:
    batch = lists(np.random.default_rng(0), 8)
    one, other = trainer(), trainer()
    one.learn(batch, again=True)
    assert any((a != other.dense()[name]).any() for name, a in one.dense().items() if name != "place_share")
    assert len(one.items.dirty) == len(one.categories.dirty) == 0
    one.learn(batch)
    assert len(one.items.dirty) > 0
    assert len(one.categories.dirty) > 0


def test_lists_learned_again_know_nothing_of_the_level_of_now() -> None:
    batch, (one, other) = lists(np.random.default_rng(0), 8), (trainer(), trainer())
    one.follow(*MANY_CLICKS)
    assert one.lately[0] > 0.5
    assert one.learn(batch, again=True) == other.learn(batch, again=True)
    assert one.learn(batch) != other.learn(batch)


def test_levels_of_carts_and_purchases_are_not_learned_from() -> None:
    batch, (one, other) = lists(np.random.default_rng(0), 8), (trainer(), trainer())
    one.follow(*MANY_CARTS)
    assert (one.lately[1:] > 0.5).all()
    assert one.learn(batch) == other.learn(batch)


@pytest.mark.parametrize(("many", "moved"), [(MANY_CLICKS, [0, 1, 2]), (MANY_CARTS, [1, 2])])
def test_levels_move_probabilities_and_not_the_order_and_rollback_takes_them_back(
    many: tuple[Array, ...], moved: list[int]
) -> None:
    t, batch = trainer(), lists(np.random.default_rng(0), 8)
    before = t.predict(batch)
    t.follow(*many)
    after = t.predict(batch)
    assert (after.score == before.score).all()
    assert np.flatnonzero((after.p > before.p).all(0)).tolist() == moved
    assert np.flatnonzero((after.p != before.p).any(0)).tolist() == moved
    t.rollback()
    assert (t.predict(batch).p == before.p).all()


def test_what_rows_know_by_heart_does_not_teach_dense_weights_again() -> None:
    batch = lists(np.random.default_rng(0), 8)
    one, other = trainer(), trainer()
    one.rows()["bias"][:] = np.random.default_rng(1).standard_normal(SHAPE.rows)
    one.rows()["embedding"][:] *= 3
    assert one.learn(batch, again=True) == other.learn(batch, again=True)
    assert one.dense().keys() == other.dense().keys()
    for name, array in one.dense().items():
        np.testing.assert_array_equal(array, other.dense()[name], err_msg=name)


def test_served_weights_are_steadier_than_a_single_step() -> None:
    def moves(mean: int, monkeypatch: pytest.MonkeyPatch) -> float:
        monkeypatch.setattr("models.dense.MEAN", mean)
        t, rng, moved = trainer(), np.random.default_rng(0), []
        for _ in range(40):
            before = t.dense()["deep1"]
            t.learn(lists(rng, 8))
            moved.append(np.abs(t.dense()["deep1"] - before).mean())
        return float(np.mean(moved[20:]))

    with pytest.MonkeyPatch.context() as patch:
        assert moves(20, patch) < 0.75 * moves(1, patch)


def test_the_tower_fades_where_nothing_is_learned() -> None:
    t, rng = trainer(), np.random.default_rng(0)
    start = t.dense()
    for _ in range(40):
        batch = lists(rng, 8)
        batch.labels[:] = 0
        t.learn(batch, learning_rate=0.02, lesson=Lesson(batch.labels, batch.labels))
    after = t.dense()
    assert np.abs(after["deep2"]).mean() < 0.8 * np.abs(start["deep2"]).mean()
    np.testing.assert_array_equal(after["click"], start["click"])


def test_a_list_without_a_lesson_in_probability_teaches_order() -> None:
    rng = np.random.default_rng(0)
    some = trainer()
    batch = lists(rng, 8)
    before = some.dense()
    none = np.zeros(64, np.uint8)
    some.learn(batch, lesson=Lesson(none, none))
    after = some.dense()
    for head in ("click", "cart", "purchase"):
        np.testing.assert_array_equal(before[head], after[head])
    assert (before["deep1"] != after["deep1"]).any()
    some.learn(batch, lesson=Lesson(none, none | 0b001))
    assert (some.dense()["click"] != after["click"]).any()
    np.testing.assert_array_equal(some.dense()["purchase"], after["purchase"])


def test_function_stays_when_the_bins_move() -> None:
    t, rng = trainer(), np.random.default_rng(0)
    narrow = lists(rng, 40)
    t.observe(narrow.features)
    for _ in range(30):
        t.learn(lists(rng, 16))
    before = t.predict(narrow)
    edges = t.dense()["edges"]
    t.observe(lists(rng, 400).features)
    assert np.abs(t.dense()["edges"] - edges).max() > 0.01
    after = t.predict(narrow)
    # not exactly: a knot between two new edges is cut off
    assert np.corrcoef(before.score, after.score)[0, 1] > 0.98
    assert np.abs(before.p[:, 0] - after.p[:, 0]).mean() < 0.03


def test_place_bias_is_learned_apart_from_the_score() -> None:
    t, rng = trainer(), np.random.default_rng(0)
    for _ in range(300):
        batch = lists(rng, 32)
        x = np.zeros_like(batch.features)
        labels = np.zeros((32, 8), np.uint8)
        labels[:, 0] = rng.random(32) < 0.6
        labels[:, 4] = rng.random(32) < 0.1
        t.learn(replace(batch, features=x, labels=labels.ravel()))
    probe = lists(rng, 200)
    probe = replace(probe, features=np.zeros_like(probe.features))
    p = t.predict(probe).p[:, 0].reshape(200, 8).mean(0)
    score = t.predict(probe).score.reshape(200, 8)
    assert p[0] > 3 * p[4]
    assert p[4] > p[7]
    assert abs(score[:, 0].mean() - score[:, 4].mean()) < 0.3 * score.std() + 0.05


def test_missing_features_do_not_spoil_a_batch() -> None:
    t, rng = trainer(), np.random.default_rng(0)
    batch = lists(rng, 16)
    batch.features[:, FEATURE["price"]] = np.nan
    t.observe(batch.features)
    assert np.isfinite(t.learn(batch))
    assert np.isfinite(t.predict(batch).p).all()


@pytest.mark.filterwarnings("error")
def test_lists_may_be_read_only_as_decoded_messages_are() -> None:
    batch = lists(np.random.default_rng(0), 8)
    for column in vars(batch).values():
        column.flags.writeable = False
    t = trainer()
    assert np.isfinite(t.learn(batch))
    assert len(t.predict(batch).score) == len(batch.item)


def test_empty_batch_is_no_step() -> None:
    t = trainer()
    none = lists(np.random.default_rng(0), 0)
    assert len(t.predict(none).score) == 0


def test_unlabelled_batch_is_learned_as_no_clicks() -> None:
    t, rng = trainer(), np.random.default_rng(0)
    batch = lists(rng, 32)
    batch.labels[:] = 0
    before = t.predict(batch).p.mean()
    for _ in range(20):
        t.learn(batch)
    assert t.predict(batch).p.mean() < before


TAUGHT = {
    "full": set(trainer().parts()) - {*COUNTED},
    "sparse": set(),
    "head": {*HEADS},
    "lora": {*HEADS, *FACTORS},
}


@pytest.mark.parametrize("policy", TAUGHT)
def test_a_policy_teaches_the_weights_that_it_names(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.policy.WARM", 4)
    t = trainer(policy=policy)
    assert t.mode == "full"
    rows = {name: array.copy() for name, array in t.rows().items()}
    assert learned(t) == TAUGHT[policy]
    assert t.mode == policy
    assert moved(t, rows) == {"embedding", "bias", "category"}
    assert t.rests == (policy == "sparse")


@pytest.mark.parametrize("policy", ["sparse", "head", "lora"])
def test_rows_go_on_to_learn(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.policy.WARM", 0)
    t = trainer(policy=policy)
    rows = {name: array.copy() for name, array in t.rows().items()}
    t.learn(lists(np.random.default_rng(0), 32))
    assert moved(t, rows) == {"embedding", "bias", "category"}


def test_a_policy_hears_of_how_many_lists_losses_are_the_mean_of(monkeypatch: pytest.MonkeyPatch) -> None:
    t, heard = trainer(), []
    monkeypatch.setattr(t.policy, "saw", lambda *what: heard.append(what))
    shown = lists(np.random.default_rng(0), 6)
    size = np.diff(shown.start)
    clicked = np.repeat(np.arange(6) < 2, size)
    shown = replace(shown, labels=clicked.astype(np.uint8))
    all_ = np.repeat(np.arange(6) < 4, size).astype(np.uint8)
    t.learn(shown, lesson=Lesson(all_ * clicked, all_ * ~clicked))
    t.learn(shown, again=True)
    [(order, probability, (of_order, of_probability))] = heard
    assert np.isfinite([order, probability]).all()
    assert (of_order, of_probability) == (2, 6 * all_.mean())


def test_share_that_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.policy.WARM", 0)
    full, head, sparse = (trainer(policy=policy).share for policy in ("full", "head", "sparse"))
    assert (full, sparse) == (1.0, 0.0)
    assert 0.0 < head < 0.5


def test_lists_learned_again_teach_nothing_that_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.policy.WARM", 4)
    t = trainer(policy="head")
    assert learned(t, again=True) == {*HEADS}


def test_dynamic_lets_dense_weights_rest_until_the_loss_rises(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"models.policy.WARM": 0, "models.policy.CALM": 40, "models.drift.KNOWN": 20}.items():
        monkeypatch.setattr(name, value)
    t, rng = trainer(policy="dynamic"), np.random.default_rng(0)
    for _ in range(400):
        t.learn(lists(rng, 16), learning_rate=0.01)
        if t.rests:
            break
    assert t.mode == "sparse"
    dense, modes = t.dense(), []
    for _ in range(20):
        batch = lists(rng, 16)
        batch.features[:, FEATURE["price"]] *= -3
        t.learn(batch, learning_rate=0.01)
        modes.append(t.mode)
    assert modes[0] == "sparse"
    assert modes[-1] == "full"
    assert (t.dense()["deep1"] != dense["deep1"]).any()


@pytest.mark.parametrize("policy", POLICIES)
def test_rollback_takes_the_policy_along(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.policy.WARM", 3)
    t, rng = trainer(policy=policy), np.random.default_rng(0)
    batches = [lists(rng, 16) for _ in range(6)]
    t.learn(batches[0])
    t.keep()
    t.rollback()  # what is good is the mean that was served, not the newest step

    def rest() -> list[Array]:
        for batch in batches[1:]:
            t.learn(batch)
        return [*t.parts().values(), *(array.copy() for array in t.rows().values())]

    once = rest()
    t.rollback()
    assert t.mode == "full"
    for before, after in zip(once, rest(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_what_pads_a_batch_teaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> Trainer:
        t = trainer()
        for seed in range(8):
            batch = lists(np.random.default_rng(seed), 13)
            t.observe(batch.features)
            t.learn(batch, again=seed % 3 == 2)
        return t

    plain = run()
    monkeypatch.setattr("models.tensors.room", lambda n, b, device: (roomy(n), roomy(b + 1)))
    other, probe = run(), lists(np.random.default_rng(99), 21)
    assert len(batch_of(probe, None, other.device).x) > len(probe.item)
    for name, array in plain.state().items():
        np.testing.assert_allclose(array, other.state()[name], rtol=1e-3, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(plain.predict(probe).p, other.predict(probe).p, atol=1e-5)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("graphs", [False, True])
def test_gpu_learns_what_the_cpu_learns(graphs: bool, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.policy.WARM", 6)  # the mode changes on the way
    one, other = (
        trainer(device="cpu", policy=policy),
        trainer(policy=policy, device="cuda", cuda_graphs=graphs),
    )
    for seed in range(20):
        batch = lists(np.random.default_rng(seed), 16 + seed % 5)
        losses = []
        for t in (one, other):
            t.observe(batch.features)
            losses.append([t.learn(batch), t.learn(batch, again=True)])
        np.testing.assert_allclose(*losses, atol=1e-3)
    assert one.mode == other.mode
    probe = lists(np.random.default_rng(99), 20)
    np.testing.assert_allclose(one.predict(probe).score, other.predict(probe).score, atol=1e-2)


@pytest.mark.gpu
@needs_gpu
def test_gpu_goes_back_and_on_as_the_cpu_does() -> None:
    one, other = trainer(device="cpu"), trainer(device="cuda", cuda_graphs=True)
    for seed in range(12):
        batch = lists(np.random.default_rng(seed), 16)
        for t in (one, other):
            t.learn(batch)
            if seed == 5:
                t.keep()
            if seed == 8:
                t.rollback()
            if seed == 9:
                t.load_state(t.state())
    for name, array in one.state().items():
        np.testing.assert_allclose(array, other.state()[name], atol=2e-3, err_msg=name)


@pytest.mark.gpu
@needs_gpu
def test_gpu_in_bfloat16_learns_nearly_the_same() -> None:
    one, other = trainer(device="cuda"), trainer(device="cuda", cuda_graphs=True, bfloat16=True)
    for seed in range(60):
        batch = lists(np.random.default_rng(seed), 16)
        for t in (one, other):
            t.observe(batch.features)
            t.learn(batch)
    probe = lists(np.random.default_rng(99), 50)
    assert np.corrcoef(one.predict(probe).score, other.predict(probe).score)[0, 1] > 0.98


@pytest.mark.gpu
@needs_gpu
def test_gpu_does_not_take_a_step_that_is_not_finite() -> None:
    t, rng = trainer(device="cuda", cuda_graphs=True), np.random.default_rng(0)
    t.learn(lists(rng, 16))
    before = t.state()
    t.items.values["bias"].fill_(np.nan)
    assert np.isnan(t.learn(lists(rng, 16)))
    t.items.values["bias"].copy_(torch.from_numpy(before["items.bias"]))
    for name, array in t.state().items():
        if "place_share" not in name:
            np.testing.assert_array_equal(array, before[name], err_msg=name)
