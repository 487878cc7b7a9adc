from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from models.batch import Array
from models.lately import MEMORY, follow

ITEMS, TRUTH, BEFORE = 200, 0.2, 0.1
"""Items of a step; the share that is clicked; what the rest of the model says of it."""
RIGHT = np.log(TRUTH / (1 - TRUTH)) - np.log(BEFORE / (1 - BEFORE))


def live(steps: int, delay: int = 0) -> list[float]:
    """Levels after each step; what came of a prediction is known `delay` steps later."""
    clicked = np.arange(ITEMS) < ITEMS * TRUTH
    level, waiting, levels = 0.0, deque[float](), []
    for _ in range(steps):
        waiting.append(level)
        if len(waiting) > delay:
            then = np.full(ITEMS, waiting.popleft())
            level = follow(level, said(then), then, clicked)
        levels.append(level)
    return levels


def said(level: Array) -> Array:
    """What is predicted with a level."""
    probability: Array = 1 / (1 + (1 / BEFORE - 1) * np.exp(-level))
    return probability


def test_predictions_come_to_what_is_seen_after_about_as_many_clicks_as_are_remembered() -> None:
    levels = live(400)
    clicks = ITEMS * TRUTH * np.arange(1, 401)
    assert 0.3 < levels[int(np.searchsorted(clicks, MEMORY))] / RIGHT < 0.9
    assert levels[-1] == pytest.approx(RIGHT, abs=0.01)


def test_what_was_made_up_for_is_not_made_up_for_again_however_late_it_is_known() -> None:
    levels = live(1000, delay=400)
    assert max(levels) <= RIGHT + 0.01
    assert levels[-1] == pytest.approx(RIGHT, abs=0.01)


def test_nothing_moves_the_level_where_nothing_is_known() -> None:
    none = np.zeros(0)
    assert follow(0.5, none, none, none > 0) == 0.5


def test_a_batch_of_any_size_goes_no_further_than_what_was_seen_in_it() -> None:
    many = 1000 * int(MEMORY)
    level = follow(0.0, np.full(many, 0.02), np.zeros(many), np.arange(many) < 0.04 * many)
    assert 0.9 * np.log(2) < level < np.log(2)


def test_certain_predictions_leave_the_level_finite() -> None:
    assert np.isfinite(follow(0.0, np.ones(4), np.zeros(4), np.zeros(4) > 0))
