from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from models.batch import Array
from models.lately import LONG_MEMORY, MEMORY, faded, follow
from models.statistics import CART, CLICK, PURCHASE

ITEMS, TRUTH, BEFORE = 200, 0.2, 0.1
"""Items of a step; the share that is clicked, and carted; what the rest of the model says of it."""
RIGHT = np.log(TRUTH / (1 - TRUTH)) - np.log(BEFORE / (1 - BEFORE))
NONE = np.zeros((0, 3))
NOTHING_SOLD = np.zeros((2, 2)), np.zeros(3)
OUT_OF_CARTS, WITHOUT_CARTS = (np.array([[5.0, 2.0], [4.0, bought]]) for bought in (2.0, 0.0))


def live(steps: int, known: int = 0, late: int = 0) -> Array:
    """Levels after each step [steps, T].

    A prediction is due, and what came of it is known, `known` steps later; of half of the carts that is known
    still `late` steps later.
    """
    came = np.full(3, int(ITEMS * TRUTH))
    level, waiting, carts, levels = np.zeros(3), deque[Array](), deque[int](), []
    for _ in range(steps):
        waiting.append(level)
        if len(waiting) > known:
            then = np.tile(waiting.popleft(), (ITEMS, 1))
            carts.append(int(came[CART]) // 2)
            overdue = carts.popleft() if len(carts) > late else 0
            some = came - [0, int(came[CART]) // 2 - overdue, 0]
            level = follow(level, said(then), then, np.ones((ITEMS, 3)), some, *NOTHING_SOLD)
        levels.append(level)
    return np.array(levels)


def said(level: Array) -> Array:
    """What is predicted with a level."""
    probability: Array = 1 / (1 + (1 / BEFORE - 1) * np.exp(-level))
    return probability


def said_with(p: float, level: float) -> float:
    """A probability with a level."""
    return float(1 / (1 + (1 / p - 1) * np.exp(-level)))


def step(
    level: Array, p: Array, came: tuple[int, int, int], items: int = 1000, sold: Array = OUT_OF_CARTS
) -> Array:
    """Levels after items of which `p` [T] was predicted at these levels."""
    size = (items, 3)
    return follow(
        level,
        np.broadcast_to(p, size),
        np.broadcast_to(level, size),
        np.ones(size),
        np.array(came),
        sold,
        np.zeros(3),
    )


def test_predictions_come_to_what_is_seen_after_about_as_many_acts_as_are_remembered() -> None:
    levels = live(400)
    acts = ITEMS * TRUTH * np.arange(1, 401)
    share = levels[int(np.searchsorted(acts, MEMORY))] / RIGHT
    assert ((share > 0.3) & (share < 0.9)).all()
    assert levels[-1] == pytest.approx(np.full(3, RIGHT), abs=0.01)


def test_what_was_made_up_for_is_not_made_up_for_again_however_late_it_is_known() -> None:
    levels = live(1000, known=400)
    assert levels.max() <= RIGHT + 0.01
    assert levels[-1] == pytest.approx(np.full(3, RIGHT), abs=0.01)


def test_carts_that_come_later_than_they_are_due_count_when_they_come() -> None:
    levels = live(1000, late=5)[:, CART]
    assert levels[-1] == pytest.approx(RIGHT, abs=0.01)
    assert live(1000, late=2000)[-1, CART] < 0.1


def test_purchases_share_the_level_of_carts_whatever_came_of_them() -> None:
    for bought in (0, 500):
        level = step(np.zeros(3), np.array([0.2, 0.1, 0.05]), (200, 150, bought))
        assert level[PURCHASE] == level[CART] > 0.1


def test_purchases_share_the_level_of_clicks_where_what_is_bought_was_in_no_cart() -> None:
    level = np.zeros(3)
    for cart in (0.2, 0.1, 0.05, 1e-5):
        level = step(level, np.array([0.3, cart, 0.1]), (400, 0, 100), sold=WITHOUT_CARTS)
    assert level[CART] < -0.5
    assert level[PURCHASE] == level[CLICK] > 0.3


@pytest.mark.parametrize("before", [CLICK, CART])
def test_as_many_of_what_may_be_bought_are_predicted_to_be_as_were(before: int) -> None:
    sold, expected, level = np.zeros((2, 2)), np.zeros(3), np.zeros(3)
    sold[: before + 1] = 2000.0, 1200.0
    truth, p, share = 0.15, 0.1, 0.3  # what happens; what the rest of the model says of it, and of a sale
    for _ in range(150):
        p_now = np.array([said_with(a, at) for a, at in zip((p, p, p * share), level, strict=True)])
        expected = faded(expected, 1000 * p_now * np.exp(-level), MEMORY)
        size = (1000, 3)
        due, then = np.ones(size), np.tile(level, (1000, 1))
        came = np.full(3, 1000 * truth)
        level = follow(level, np.broadcast_to(p_now, size), then, due, came, sold, expected)
    assert said_with(p, level[before]) == pytest.approx(truth, rel=0.02)
    assert said_with(p * share, level[PURCHASE]) / truth == pytest.approx(1200 / 2000, rel=0.05)


def test_what_is_known_of_few_sales_moves_little() -> None:
    none, few = np.zeros((0, 3)), np.array([[10.0, 4.0], [10.0, 4.0]])
    level = follow(np.zeros(3), none, none, none, np.zeros(3), few, np.array([10.0, 10.0, 3.0]))
    assert 0 < level[PURCHASE] < 0.05


def test_who_sells_one_in_a_hundred_clicks_remembers_as_many_sales_as_others() -> None:
    sums = np.zeros((2, 2))
    for _ in range(10_000):
        sums = faded(sums, np.array([[100.0, 1.0], [2.0, 1.0]]), LONG_MEMORY)
    assert sums[:, 1] == pytest.approx([LONG_MEMORY] * 2, rel=0.01)
    assert sums[0, 0] == pytest.approx(100 * LONG_MEMORY, rel=0.01)


def test_nothing_moves_levels_where_nothing_is_known() -> None:
    level = np.array([0.25, 0.5, 0.25])
    assert follow(level, NONE, NONE, NONE, np.zeros(3), *NOTHING_SOLD).tolist() == level.tolist()
    p, then = np.full((9, 3), 0.3), np.zeros((9, 3))
    assert follow(level, p, then, np.zeros((9, 3)), np.zeros(3), *NOTHING_SOLD).tolist() == level.tolist()


def test_a_batch_of_any_size_goes_no_further_than_what_was_seen_in_it() -> None:
    many = 1000 * int(MEMORY)
    level = step(np.zeros(3), np.full(3, 0.02), (many // 25, many // 25, 0), many)
    assert 0.9 * np.log(2) < level[0] < np.log(2)
    assert 0.9 * np.log(2) < level[CART] < np.log(2)


def test_certain_predictions_leave_levels_finite() -> None:
    assert np.isfinite(step(np.zeros(3), np.ones(3), (0, 0, 0), 4)).all()
