from __future__ import annotations

import numpy as np
import torch

from models.losses import entire_space, listwise
from models.ranker import Outputs


def test_listwise_is_the_mean_cross_entropy_of_lists_with_a_click() -> None:
    rng = np.random.default_rng(0)
    sizes, score = [3, 5, 2, 4], rng.standard_normal(14)
    positive = np.zeros(14, bool)
    positive[[1, 4, 6, 7]] = True  # one in the first, three in the second, none after
    losses = []
    for first, last in ((0, 3), (3, 8)):
        s, y = score[first:last], positive[first:last]
        losses.append(np.log(np.exp(s).sum()) - s[y].mean())
    of = torch.from_numpy(np.repeat(np.arange(4), sizes))
    loss = listwise(torch.from_numpy(score), torch.from_numpy(positive), of, 4)
    assert abs(float(loss) - np.mean(losses)) < 1e-12


def test_listwise_survives_large_scores_and_empty_lists() -> None:
    score = torch.tensor([1e4, -1e4, 0.0], requires_grad=True)
    loss = listwise(score, torch.tensor([False, True, False]), torch.tensor([0, 0, 2]), 3)
    assert loss.item() == 2e4
    (gradient,) = torch.autograd.grad(loss, score)
    assert torch.isfinite(gradient).all()


def test_listwise_without_a_click_is_zero() -> None:
    score = torch.randn(3, requires_grad=True)
    loss = listwise(score, torch.zeros(3, dtype=torch.bool), torch.tensor([0, 0, 1]), 2)
    assert loss.item() == 0


def test_entire_space_multiplies_probabilities() -> None:
    click, cart, purchase = 0.3, -0.5, -1.2
    out = Outputs(torch.zeros(1), *(torch.tensor([v], dtype=torch.float64) for v in (click, cart, purchase)))
    p, q, r = (1 / (1 + np.exp(-v)) for v in (click, cart, purchase))
    none = -np.log(1 - p) - np.log(1 - p * q) - np.log(1 - p * r)
    both = -np.log(p) - np.log(p * q) - np.log(1 - p * r)
    assert abs(float(entire_space(out, torch.tensor([0]))) - none) < 1e-6
    assert abs(float(entire_space(out, torch.tensor([3]))) - both) < 1e-6


def test_entire_space_is_finite_when_the_model_is_certain_and_wrong() -> None:
    logits = [torch.tensor([60.0, -60.0], requires_grad=True) for _ in range(3)]
    loss = entire_space(Outputs(torch.zeros(2), *logits), torch.tensor([0, 7]))
    gradients = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in gradients)
