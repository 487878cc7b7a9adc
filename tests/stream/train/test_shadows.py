"""Rules of the older models that predict beside the newest."""

from __future__ import annotations

from collections.abc import Callable

from models.learner import Learner
from stream.settings import Settings
from stream.train.shadows import LAGS, Shadows
from tests.stream.train.synthetic import T0


def test_a_copy_is_as_old_as_the_stream_says_and_before_its_first_record_there_is_none(
    settings: Settings, make: Callable[[Settings], Learner]
) -> None:
    shadows = Shadows(make(settings), LAGS, 20)
    shadows.turn(0)  # nothing has come yet: this is no time
    shadows.turn(T0)
    assert [lagged.model for lagged in shadows.lagged.values()] == [None, None]
    shadows.turn(T0 + LAGS["1m"])
    assert [lagged.model is None for lagged in shadows.lagged.values()] == [False, True]


def test_where_nobody_is_to_be_predicted_no_copy_is_taken(
    settings: Settings, make: Callable[[Settings], Learner]
) -> None:
    shadows = Shadows(make(settings), LAGS, 0)
    for ms in range(0, 2 * LAGS["1m"], LAGS["1m"] // 4):
        shadows.turn(T0 + ms)
    assert [(len(lagged), lagged.model) for lagged in shadows.lagged.values()] == [(0, None)] * 2
