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
    shadows = Shadows(make(settings), LAGS)
    shadows.turn(0)  # nothing has come yet: this is no time
    shadows.turn(T0)
    assert [lagged.model for lagged in shadows.lagged.values()] == [None, None]
    shadows.turn(T0 + LAGS["1m"])
    assert [lagged.model is None for lagged in shadows.lagged.values()] == [False, True]
