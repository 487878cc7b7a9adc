from __future__ import annotations

import numpy as np
import pytest

from models.gate import judge

BEFORE = np.random.default_rng(0).random(400)


def test_same_losses_pass() -> None:
    assert judge(BEFORE, BEFORE.copy()).accepted


def test_better_losses_pass() -> None:
    assert judge(BEFORE, BEFORE - 0.1).accepted


def test_clearly_worse_losses_are_turned_away() -> None:
    noise = np.random.default_rng(1).standard_normal(400)
    verdict = judge(BEFORE, BEFORE + 0.2 + noise - noise.mean())
    assert not verdict.accepted
    assert verdict.reason == "worse"
    assert verdict.after - verdict.before > 3 * verdict.error


def test_worse_within_the_noise_passes() -> None:
    noise = np.random.default_rng(1).standard_normal(400)
    assert judge(BEFORE, BEFORE + 0.1 + noise - noise.mean()).accepted


def test_pairing_sees_a_small_steady_harm() -> None:
    # far below the spread of the losses themselves
    assert not judge(BEFORE, BEFORE + 0.01).accepted


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_losses_that_are_not_finite_are_turned_away(value: float) -> None:
    after = BEFORE - 1
    after[7] = value
    assert judge(BEFORE, after).reason == "not finite"


def test_one_example_or_none_speaks_for_nothing() -> None:
    assert judge(np.zeros(0), np.zeros(0)).accepted
    assert judge(np.zeros(1), np.ones(1)).accepted


def test_losses_before_that_are_not_finite_are_left_out() -> None:
    before, after = np.array([np.nan, 1.0, 1.0, 1.0]), np.array([1.0, 1.0, 1.0, 1.0])
    assert judge(before, after).accepted


def test_losses_that_are_not_paired_are_an_error() -> None:
    with pytest.raises(ValueError, match="not paired"):
        judge(BEFORE, BEFORE[1:])
