"""What is taught when, and what a model makes of it that sees labels come late."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from models.batch import Array, Lesson
from models.losses import DELAYED
from stream.train.lessons import lesson, news

PURCHASE = 2
IMPRESSIONS, RATE, DELAY_S, WAIT_S, MATURE_S = 20_000, 0.2, 120.0, 15.0, 900.0


def bits(*values: int) -> Array:
    return np.array(values, np.uint8)


@pytest.mark.parametrize("delayed", ["naive", "wait"])
def test_what_settles_is_taught_as_it_is_and_nothing_else(delayed: str) -> None:
    labels, all_, none = bits(0b111, 0b000), bits(0b111, 0b111), bits(0, 0)
    assert [c.tolist() for c in lesson(delayed, labels, labels, all_)] == [[7, 0], [0, 7]]
    assert [c.tolist() for c in lesson(delayed, labels, labels, all_ & 1)] == [[1, 0], [0, 1]]
    assert [c.tolist() for c in lesson(delayed, labels, labels, none)] == [[0, 0], [0, 0]]


@pytest.mark.parametrize("delayed", ["fnw", "fnc"])
def test_each_impression_is_a_negative_once_and_each_conversion_a_positive_once(delayed: str) -> None:
    carted, bought, all_, none, yes = bits(0b011), bits(0b111), bits(0b111), bits(0), bits(1)
    early = news(carted, none, none, none)  # before it settles
    assert lesson(delayed, carted, early, none) == (none, none)
    first = news(carted, none, yes, yes)
    assert lesson(delayed, carted, first, all_) == (0b011, 0b110)
    later = news(bought, first, none, yes)
    assert lesson(delayed, bought, later, none) == (0b100, 0)
    never = news(bought, first | later, none, yes)
    assert lesson(delayed, bought, never, none) == (none, none)


def test_a_late_click_is_not_taught() -> None:
    for delayed in DELAYED:
        late = news(bits(0b001), bits(0), bits(0), bits(1))
        assert lesson(delayed, bits(0b001), late, bits(0)) == (0, 0)


def stream(delayed: str) -> list[Lesson]:
    """What purchases teach that come minutes after their impressions: when these settle, and as they come."""
    rng = np.random.default_rng(0)
    bought_after = np.where(rng.random(IMPRESSIONS) < RATE, rng.exponential(DELAY_S, IMPRESSIONS), np.inf)
    settles_after = MATURE_S if delayed == "wait" else WAIT_S
    none, all_ = np.zeros(IMPRESSIONS, np.uint8), np.full(IMPRESSIONS, 1 << PURCHASE, np.uint8)
    no, yes = none > 0, all_ > 0
    soon, ever = all_ * (bought_after <= settles_after), all_ * np.isfinite(bought_after)
    first = news(soon, none, yes, yes)
    return [
        lesson(delayed, soon, first, all_),
        lesson(delayed, ever, news(ever, first, no, yes), none),
    ]


def fitted(delayed: str) -> float:
    """The rate that a model of one weight learns, counted by its own loss."""
    weight = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    columns = [np.concatenate(part) >> PURCHASE & 1 for part in zip(*stream(delayed), strict=True)]
    positive, negative = (torch.tensor(column.sum() / IMPRESSIONS) for column in columns)
    for _ in range(300):
        loss = DELAYED[delayed](logsigmoid(weight), positive, negative)
        weight.data -= 4 * torch.autograd.grad(loss, weight)[0]
    return float(torch.sigmoid(weight.detach()))


@pytest.mark.parametrize("delayed", ["wait", "fnw", "fnc"])
def test_the_rate_of_late_purchases_is_learned(delayed: str) -> None:
    assert abs(fitted(delayed) / RATE - 1) < 0.03


def test_it_is_far_too_low_where_late_purchases_are_left_out() -> None:
    assert fitted("naive") < 0.2 * RATE
