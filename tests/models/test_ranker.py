from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.batch import FEATURE, F
from models.ranker import (
    PLACE,
    PLACES,
    Outputs,
    fill,
    forward,
    initial,
    place_effect,
    probabilities,
    rule,
    users,
)
from tests.models.toy import SHAPE


def weights() -> dict[str, Tensor]:
    start = initial(SHAPE, np.random.default_rng(0))
    start["edges"][:] = np.linspace(-2, 2, SHAPE.bins + 1)
    return {name: torch.from_numpy(array) for name, array in start.items()}


def outputs(w: dict[str, Tensor], x: Tensor, place: int = 0) -> Outputs:
    n, d = len(x), SHAPE.width
    rng = torch.Generator().manual_seed(0)
    item, user = torch.randn(n, d, generator=rng), torch.randn(2, d, generator=rng)
    of, places = torch.arange(n) % 2, torch.full((n,), place)
    return forward(w, x, item, torch.zeros(n), user, of, places)


def test_user_is_the_decayed_mean_of_the_history() -> None:
    w = weights()
    w["history_decay"], w["history_place"] = (
        torch.tensor([0.3]),
        torch.tensor([0.1, -0.2, 0.0, 0.0, 0.0, 0.0]),
    )
    v = torch.randn(1, 6, SHAPE.width)
    age = torch.tensor([[5.0, 100.0, -1, -1, -1, -1]])
    decay = np.log1p(np.exp(0.3))
    a, b = np.exp(0.1) * 6**-decay, np.exp(-0.2) * 101**-decay
    expected = (a * v[0, 0] + b * v[0, 1]) / (a + b + 0.1)
    torch.testing.assert_close(users(w, v, age)[0], expected.to(torch.float32))


def test_user_without_history_is_zero() -> None:
    assert not users(weights(), torch.randn(3, 6, SHAPE.width), torch.full((3, 6), -1.0)).any()


def test_value_fills_the_bins_below_it() -> None:
    w = {"edges": torch.tensor([[0.0, 1, 3, 3]]).repeat(F, 1)}
    x = torch.zeros(4, F)
    x[:, 0] = torch.tensor([-5.0, 0.5, 2, 9])
    filled = fill(w, x)[0].t()
    assert filled.tolist() == [[0, 0, 0], [0.5, 0, 0], [1, 0.5, 0], [1, 1, 1]]


def test_constant_or_missing_features_give_numbers() -> None:
    w = weights()
    w["edges"] = torch.zeros_like(w["edges"])
    x = torch.full((3, F), float("nan"))
    x[1] = float("inf")
    x[2] = 1e30
    assert all(torch.isfinite(column).all() for column in outputs(w, x))


def test_before_anything_is_learned_a_given_order_stands_but_for_what_was_touched() -> None:
    x = torch.zeros(4, F)
    x[:, FEATURE["prior_rank"]] = torch.tensor([1.0, 2, 3, 4])
    x[:, FEATURE["list_recency"]] = torch.tensor([0, 0, 0.5, 1])
    assert rule(x).argsort(descending=True).tolist() == [3, 2, 0, 1]
    free = rule(torch.zeros(4, F))
    assert free.tolist() == [0, 0, 0, 0]


def test_probabilities_do_not_move_the_ranking() -> None:
    w = {name: array.requires_grad_() for name, array in weights().items()}
    out = outputs(w, torch.randn(4, F))
    moved = torch.autograd.grad(out.click.sum(), list(w.values()), allow_unused=True)
    names = {name for name, gradient in zip(w, moved, strict=True) if gradient is not None and gradient.any()}
    assert names <= {"click", "wide", "wide_bias", "place_click", "lately"}
    wide = dict(zip(w, moved, strict=True))["wide"]
    assert not wide[0].any()
    assert wide[1].any()


def test_place_moves_the_click_and_not_the_score() -> None:
    w = weights()
    w["place_click"][3] = 2.0
    w["place_share"][3] = 0.5
    x = torch.randn(4, F)
    free, third = outputs(w, x), outputs(w, x, place=3)
    torch.testing.assert_close(free.score, third.score)
    torch.testing.assert_close(third.click, free.click + PLACE * 1.0)


def test_places_beyond_the_last_share_its_effect() -> None:
    w = weights()
    w["place_score"][PLACES] = 1.5
    effect = place_effect(w, "place_score", torch.tensor([0, 1, PLACES, PLACES + 9]))
    assert effect.tolist() == [0, 0, 1.5 * PLACE, 1.5 * PLACE]


def test_no_task_is_likelier_than_a_click() -> None:
    p = probabilities(outputs(weights(), torch.randn(50, F)))
    assert (p[:, 1:] <= p[:, :1]).all()
