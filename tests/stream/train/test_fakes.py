from __future__ import annotations

import numpy as np
import pytest

from models.batch import CLICK, CONVERSIONS, Lesson
from stream.train.fakes import Fakes

WAIT_S, STEP_MS, ITEMS = 600, 2000, 200
PURCHASE, CHANCE, BOUGHT = 2, 0.3, 0.5
"""The task; of the items, how many are clicked; of these, how many are bought."""


class Stream:
    """Items shown every other second; what is clicked may be bought, some time later."""

    def __init__(self, mean_s: float, growth: float = 0.0) -> None:
        self.rng, self.fakes, self.mean_s, self.growth = (
            np.random.default_rng(0),
            Fakes(WAIT_S),
            mean_s,
            growth,
        )
        self.now = self.clicks = self.sold = 0
        self.sales = np.zeros((0, 2), np.int64)  # when shown, when bought

    def step(self) -> tuple[Lesson, Lesson]:
        """What is to be taught, and what is."""
        self.now += STEP_MS
        count = int(ITEMS * (1 + self.growth * self.now / 1000 / WAIT_S))
        shown = np.full(count, self.now)
        clicked = self.rng.random(count) < CHANCE
        bought = shown[clicked & (self.rng.random(count) < BOUGHT)]
        delays = (1000 * self.rng.exponential(self.mean_s, len(bought))).astype(np.int64)
        self.sales = np.concatenate([self.sales, np.stack([bought, bought + delays], 1)])
        come = self.sales[self.sales[:, 1] <= self.now]
        self.sales = self.sales[self.sales[:, 1] > self.now]
        self.fakes.heard(np.full(len(come), PURCHASE), come[:, 1] - come[:, 0])
        self.sold += len(come)
        lesson = Lesson(clicked * np.uint8(CLICK), (~clicked * np.uint8(CLICK)) | np.uint8(CONVERSIONS))
        taught = self.fakes.thin(lesson, shown, self.now, self.rng)
        self.clicks += int((clicked & (taught.negative >> PURCHASE & 1 > 0)).sum())
        return lesson, taught


@pytest.mark.parametrize("growth", [0.0, 3.0])
@pytest.mark.parametrize("mean_s", [5, 30, 120])
def test_as_many_clicks_are_taught_as_not_bought_as_have_had_their_sales(
    mean_s: float, growth: float
) -> None:
    stream, ratios = Stream(mean_s, growth), []
    for _ in range(WAIT_S * 1000 // STEP_MS - 1):
        stream.step()
        ratios.append(stream.sold / (BOUGHT * stream.clicks + 1e-9))
    assert np.array(ratios[90:]) == pytest.approx(1, abs=0.2)
    assert np.array(ratios[-30:]) == pytest.approx(1, abs=0.05)


def test_before_anything_is_known_little_is_taught_as_not_bought() -> None:
    stream = Stream(1e6)
    assert [negatives(stream.step()[1]) for _ in range(3)] < [ITEMS // 10] * 3


def negatives(lesson: Lesson) -> int:
    """Negatives of purchases."""
    return int((lesson.negative >> PURCHASE & 1).sum())


def test_nothing_is_left_out_when_the_stream_is_as_old_as_the_wait() -> None:
    stream = Stream(120)
    for _ in range(WAIT_S * 1000 // STEP_MS):
        stream.step()
    lesson, taught = stream.step()
    assert taught is lesson


def test_only_negatives_of_carts_and_purchases_are_left_out() -> None:
    stream = Stream(120)
    for _ in range(50):
        lesson, taught = stream.step()
        assert (taught.positive == lesson.positive).all()
        assert (taught.negative & CLICK == lesson.negative & CLICK).all()
        assert negatives(lesson) == len(lesson.negative)  # it stays as it is


def test_a_lesson_without_anything_that_has_waited_stays_as_it_is() -> None:
    fakes, rng, none = Fakes(WAIT_S), np.random.default_rng(0), np.zeros(3, np.uint8)
    lesson = Lesson(none + np.uint8(1 << PURCHASE), none)
    taught = fakes.thin(lesson, np.array([5, 6, 7]), 10, rng)
    assert (taught.positive == lesson.positive).all()
    assert not taught.negative.any()


def test_acts_that_come_later_than_the_wait_are_not_thought_of() -> None:
    stream, late = Stream(60), np.array([1000 * WAIT_S])
    for _ in range(60):
        stream.step()
    before = stream.fakes.mature(stream.now)
    stream.fakes.heard(np.array([PURCHASE]), late)
    assert (stream.fakes.mature(stream.now) == before).all()
    stream.fakes.heard(np.array([PURCHASE]), late - 1000 * WAIT_S)
    assert (stream.fakes.mature(stream.now) != before).any()


def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_happened() -> None:
    stream, other = Stream(1e6), Fakes(WAIT_S)
    for _ in range(30):
        lesson, _ = stream.step()
    other.restore(stream.fakes.state())
    shown, later = np.full(len(lesson.negative), stream.now), stream.now + STEP_MS
    once, again = (
        fakes.thin(lesson, shown, later, np.random.default_rng(1)) for fakes in (stream.fakes, other)
    )
    assert 0 < negatives(once) < ITEMS
    assert (once.negative == again.negative).all()
