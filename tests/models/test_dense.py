from __future__ import annotations

import numpy as np
import torch

from models.dense import CLIP, Dense, adam, adam_compiled

RATE = 0.01


def weights(seed: int = 0) -> Dense:
    rng = np.random.default_rng(seed)
    start = {name: rng.standard_normal((3, 4)).astype(np.float32) for name in ("a", "b")}
    return Dense(start, {"a"}, torch.device("cpu"))


def steps(dense: Dense, count: int) -> None:
    """Towards zero."""
    for _ in range(count):
        leaf = dense.leaf()
        loss = sum(w.square().sum() for w in dense.learned(leaf).values())
        assert isinstance(loss, torch.Tensor)
        (gradient,) = torch.autograd.grad(loss, [leaf])
        dense.step(gradient, gradient.norm().item(), RATE)


def test_weights_that_rest_stay_as_they_were_served() -> None:
    dense = weights()
    steps(dense, 10)
    assert (dense.now()["a"] != dense.mean()["a"]).any()
    served, other = dense.mean()["a"].clone(), dense.mean()["b"].clone()
    dense.let_learn({"b"})
    steps(dense, 10)
    assert torch.equal(dense.now()["a"], served)
    assert torch.equal(dense.mean()["a"], served)
    assert (dense.mean()["b"] != other).all()


def test_weights_that_rested_learn_on() -> None:
    dense = weights()
    dense.let_learn([])
    dense.let_learn(["a", "b"])
    before = dense.now()["a"].clone()
    steps(dense, 1)
    assert (dense.now()["a"].abs() < before.abs()).all()


def test_a_gradient_is_clipped() -> None:
    def after(size: float) -> torch.Tensor:
        dense = weights()
        for factor in (1.0, size):
            gradient = torch.full((24,), factor * CLIP / 24**0.5)
            dense.step(gradient, gradient.norm().item(), RATE)
        return dense.now()["b"]

    torch.testing.assert_close(after(100.0), after(1.0))
    assert (after(0.5) != after(1.0)).all()


def test_a_compiled_step_is_a_step() -> None:
    rng = np.random.default_rng(0)
    mine = [rng.random(1000).astype(np.float32) for _ in range(6)]
    theirs = [torch.from_numpy(vector.copy()) for vector in mine]
    scales = 0.5, 0.01, 0.02, 3.0, 0.1
    for _ in range(3):
        adam_compiled(*mine, *map(np.float32, scales))
        adam(*theirs, *scales)
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-4)


def test_rollback_returns_weights_optimiser_and_steps() -> None:
    dense = weights()
    steps(dense, 3)
    dense.keep()
    good = dense.state()
    steps(dense, 3)
    dense.rollback()
    for name, array in dense.state().items():
        # it goes on from what was served
        np.testing.assert_array_equal(array, good[name.replace("flat.", "mean.")], err_msg=name)


def test_state_without_some_weights_leaves_those_as_they_are() -> None:
    one, other = weights(), weights(1)
    steps(one, 3)
    own = other.now()["b"].clone()
    other.load_state({name: array for name, array in one.state().items() if not name.endswith(".b")})
    assert torch.equal(other.now()["a"], one.now()["a"])
    assert torch.equal(other.now()["b"], own)
    assert other.steps == 3
