from __future__ import annotations

import numpy as np
import pytest

from models.batch import CLICK, CONVERSIONS, Array, Lesson
from stream.train.delays import Delays

WAIT_S, CLICK_WAIT_MS, STEP_MS, ITEMS = 600, 16_000, 2000, 200
PURCHASE, CHANCE, BOUGHT = 2, 0.3, 0.5
"""The task; of the items, how many are clicked; of these, how many are bought."""
SHOWN, NONE = np.arange(0, 120_000, 1000), np.zeros(3, np.int64)


class Stream:
    """Items shown every other second; what is clicked may be bought, some time later."""

    def __init__(self, mean_s: float, growth: float = 0.0) -> None:
        self.rng, self.delays = np.random.default_rng(0), Delays(WAIT_S)
        self.mean_s, self.growth = mean_s, growth
        self.now, self.items, self.clicks, self.sold = CLICK_WAIT_MS, 0, 0, 0
        self.sales = np.zeros((0, 2), np.int64)  # when shown, when bought

    def step(self) -> tuple[Lesson, Lesson]:
        """What is to be taught of the items whose wait for clicks ends, and what is."""
        self.now += STEP_MS
        shown = self.now - CLICK_WAIT_MS
        clicked = self.rng.random(int(ITEMS * (1 + self.growth * self.now / 1000 / WAIT_S))) < CHANCE
        bought = np.full(self.rng.binomial(clicked.sum(), BOUGHT), shown)
        delays = (1000 * self.rng.exponential(self.mean_s, len(bought))).astype(np.int64)
        self.sales = np.concatenate([self.sales, np.stack([bought, bought + delays], 1)])
        come = self.sales[self.sales[:, 1] <= self.now]
        self.sales = self.sales[self.sales[:, 1] > self.now]
        self.delays.heard(np.full(len(come), PURCHASE), come[:, 1] - come[:, 0])
        self.sold += len(come)
        lesson = Lesson(clicked * np.uint8(CLICK), (~clicked * np.uint8(CLICK)) | np.uint8(CONVERSIONS))
        number = self.items + np.arange(len(clicked))
        self.items += len(clicked)
        taught = self.delays.thin(lesson, number, np.full(len(clicked), shown), self.now)
        self.clicks += int((clicked & (taught.negative >> PURCHASE & 1 > 0)).sum())
        return lesson, taught

    def live(self, seconds: float) -> Array:
        """Sales come over sales to expect of the clicks taught as none, after each step."""
        ratios = []
        for _ in range(int(seconds * 1000) // STEP_MS):
            self.step()
            ratios.append(self.sold / (BOUGHT * self.clicks + 1e-9))
        return np.array(ratios)


@pytest.mark.parametrize("growth", [0.0, 3.0])
@pytest.mark.parametrize("mean_s", [20, 60, 120])
def test_as_many_clicks_are_taught_as_not_bought_as_have_had_their_sales(
    mean_s: float, growth: float
) -> None:
    ratios = Stream(mean_s, growth).live(WAIT_S - 2 * STEP_MS / 1000)
    assert ratios[90:] == pytest.approx(1, abs=0.2)
    assert ratios[-30:] == pytest.approx(1, abs=0.05)


def test_that_holds_from_the_first_minute_on_where_sales_take_less() -> None:
    assert Stream(20).live(120)[30:] == pytest.approx(1, abs=0.1)


def test_one_early_sale_does_not_outweigh_those_of_a_crowd() -> None:
    stream = Stream(60)
    first = Lesson(np.ones(1, np.uint8), np.full(1, 6, np.uint8))
    stream.delays.thin(first, NONE[:1], NONE[:1], CLICK_WAIT_MS)  # before the shop opens
    stream.now = 300_000
    stream.delays.heard(np.array([PURCHASE]), np.array([stream.now]))
    assert stream.live(250)[60:] == pytest.approx(1, abs=0.2)


def test_before_anything_is_known_little_is_taught_as_not_bought() -> None:
    stream = Stream(1e6)
    assert max(negatives(stream.step()[1]) for _ in range(3)) < ITEMS // 10


def test_what_nobody_saw_does_not_make_the_stream_old() -> None:
    stream, nothing = Stream(1e6), np.zeros(3, np.uint8)
    lesson = Lesson(nothing + np.uint8(1 << PURCHASE), nothing)
    assert stream.delays.thin(lesson, NONE, NONE, 10) is lesson
    stream.now = 1000 * WAIT_S
    assert 0 < max(negatives(stream.step()[1]) for _ in range(3)) < ITEMS // 5


def test_nothing_is_left_out_when_the_stream_is_as_old_as_the_wait() -> None:
    stream = Stream(120)
    stream.live(WAIT_S)
    lesson, taught = stream.step()
    assert taught is lesson


def test_first_lists_mature_between_one_wait_and_two() -> None:
    delays, lesson = Delays(WAIT_S), Lesson(np.zeros(1, np.uint8), np.full(1, 7, np.uint8))
    assert delays.left(10**9) == 1
    delays.thin(lesson, np.zeros(1, np.int64), np.array([5000]), 5000)
    waits = [delays.left(5000 + int(1000 * WAIT_S * k)) for k in (0.5, 1, 1.25, 2, 3)]
    assert waits == pytest.approx([1, 1, 0.75, 0, 0])


def test_only_negatives_of_carts_and_purchases_are_left_out() -> None:
    stream = Stream(120)
    for _ in range(50):
        lesson, taught = stream.step()
        assert (taught.positive == lesson.positive).all()
        assert (taught.negative & CLICK == lesson.negative & CLICK).all()
        assert negatives(lesson) == len(lesson.negative)  # it stays as it is


def test_acts_that_come_later_than_the_wait_are_not_thought_of() -> None:
    stream, late = Stream(60), np.array([1000 * WAIT_S])
    stream.live(120)
    before = stream.delays.come(SHOWN, stream.now)
    stream.delays.heard(np.array([PURCHASE]), late)
    assert (stream.delays.come(SHOWN, stream.now) == before).all()
    stream.delays.heard(np.array([PURCHASE]), late - 1000 * WAIT_S)
    assert (stream.delays.come(SHOWN, stream.now) != before).any()


def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_happened() -> None:
    stream, other = Stream(120), Delays(2 * WAIT_S)  # the setting has changed meanwhile
    stream.live(90)
    other.restore(stream.delays.state())
    assert (other.come(SHOWN, stream.now) == stream.delays.come(SHOWN, stream.now)).all()
    lesson = Lesson(np.zeros(ITEMS, np.uint8), np.full(ITEMS, 7, np.uint8))
    shown, later = np.full(ITEMS, stream.now), stream.now + STEP_MS
    once, again = (each.thin(lesson, np.arange(ITEMS), shown, later) for each in (stream.delays, other))
    assert (once.negative == again.negative).all()


def negatives(lesson: Lesson) -> int:
    """Negatives of purchases."""
    return int((lesson.negative >> PURCHASE & 1).sum())
