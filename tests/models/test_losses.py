from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from models.losses import (
    DELAYED,
    Loss,
    entire_space,
    fake_negative_calibrated,
    fake_negative_weighted,
    listwise,
    log_loss,
)
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


def teach(*bits: int) -> torch.Tensor:
    return torch.tensor(bits, dtype=torch.uint8)


def test_entire_space_multiplies_probabilities() -> None:
    click, cart, purchase = 0.3, -0.5, -1.2
    out = Outputs(torch.zeros(1), *(torch.tensor([v], dtype=torch.float64) for v in (click, cart, purchase)))
    p, q, r = (1 / (1 + np.exp(-v)) for v in (click, cart, purchase))
    none = -np.log(1 - p) - np.log(1 - p * q) - np.log(1 - p * r)
    both = -np.log(p) - np.log(p * q) - np.log(1 - p * r)
    assert abs(float(entire_space(out, teach(0), teach(7))) - none) < 1e-6
    assert abs(float(entire_space(out, teach(3), teach(4))) - both) < 1e-6


def test_entire_space_of_tasks_that_are_not_taught_is_zero() -> None:
    out = Outputs(*torch.tensor([[0.0], [0.3], [-0.5], [-1.2]], dtype=torch.float64))
    p, q = 1 / (1 + np.exp(-0.3)), 1 / (1 + np.exp(0.5))
    assert float(entire_space(out, teach(0), teach(0))) == 0
    assert abs(float(entire_space(out, teach(0), teach(2))) + np.log(1 - p * q)) < 1e-6


def test_conversions_have_a_loss_of_their_own_and_clicks_have_not() -> None:
    out = Outputs(*torch.tensor([[0.0], [0.3], [-0.5], [-1.2]], dtype=torch.float64))
    given: list[float] = []

    def spy(log_p: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        given.append(float(log_p.exp()))
        return 100 * positive + 1000 * negative

    loss = float(entire_space(out, teach(0b011), teach(0b100), spy))
    p, q, r = (1 / (1 + np.exp(-v)) for v in (0.3, -0.5, -1.2))
    np.testing.assert_allclose(given, [p * q, p * r])
    assert abs(loss - (1100 - np.log(p))) < 1e-6


def test_entire_space_is_finite_when_the_model_is_certain_and_wrong() -> None:
    for loss in {*DELAYED.values()}:
        logits = [torch.tensor([60.0, -60.0], requires_grad=True) for _ in range(3)]
        value = entire_space(Outputs(torch.zeros(2), *logits), teach(0, 7), teach(7, 0), loss).sum()
        gradients = torch.autograd.grad(value, logits)
        assert torch.isfinite(value)
        assert all(torch.isfinite(g).all() for g in gradients)


def fitted(loss: Loss, positives: float, negatives: float) -> float:
    """The probability that a model of one weight learns from so many positives and negatives a list."""
    weight = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    for _ in range(400):
        value = loss(logsigmoid(weight), torch.tensor(positives), torch.tensor(negatives))
        (gradient,) = torch.autograd.grad(value, weight)
        weight.data -= 2 * gradient
    return float(torch.sigmoid(weight.detach()))


@pytest.mark.parametrize("p", [0.05, 0.2, 0.6])
def test_each_loss_has_its_minimum_at_the_rate_of_conversions(p: float) -> None:
    assert abs(fitted(log_loss, p, 1 - p) - p) < 1e-3
    assert abs(fitted(fake_negative_weighted, p, 1) - p) < 1e-3
    assert abs(fitted(fake_negative_calibrated, p, 1) - p) < 1e-3


def test_without_weights_or_calibration_that_stream_gives_the_share_of_positives() -> None:
    assert abs(fitted(log_loss, 0.6, 1) - 0.6 / 1.6) < 1e-3
