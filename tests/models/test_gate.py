from __future__ import annotations

import numpy as np
import pytest

from models.batch import Array
from models.gate import MEMORY, Harm, Verdict, judge

BEFORE = np.random.default_rng(0).random(400)


def verdict_on(before: Array, after: Array, labels: int = 1) -> Verdict:
    return judge(before, after, np.full(len(before), labels))[0]


def test_same_losses_pass() -> None:
    assert verdict_on(BEFORE, BEFORE.copy()).accepted


def test_better_losses_pass() -> None:
    assert verdict_on(BEFORE, BEFORE - 0.1).accepted


def test_clearly_worse_losses_are_turned_away() -> None:
    noise = np.random.default_rng(1).standard_normal(400)
    verdict = verdict_on(BEFORE, BEFORE + 0.2 + noise - noise.mean())
    assert not verdict.accepted
    assert verdict.reason == "worse"
    assert verdict.after - verdict.before > 3 * verdict.error


def test_worse_within_the_noise_passes() -> None:
    noise = np.random.default_rng(1).standard_normal(400)
    assert verdict_on(BEFORE, BEFORE + 0.1 + noise - noise.mean()).accepted


def test_pairing_sees_a_small_steady_harm() -> None:
    # far below the spread of the losses themselves
    assert verdict_on(BEFORE, BEFORE + 0.01).reason == "worse"
    assert not verdict_on(BEFORE, BEFORE + 0.03).accepted


def test_a_harm_of_less_than_a_twentieth_is_no_objection() -> None:
    assert verdict_on(BEFORE, BEFORE * 1.049).accepted
    assert not verdict_on(BEFORE, BEFORE * 1.051).accepted


def test_what_may_be_chance_by_all_labels_is_no_objection() -> None:
    few = BEFORE[:10]
    assert verdict_on(few, few + 0.1, labels=6).accepted
    assert not verdict_on(few, few + 0.1, labels=7).accepted


def test_small_harms_add_up_until_they_are_too_much() -> None:
    labels, owed, verdicts = np.ones(400, np.int64), Harm(), []
    for _ in range(8):
        verdict, harm = judge(BEFORE, BEFORE * 1.02, labels, owed)
        owed = harm.faded()
        verdicts.append(verdict)
    # 1 + .95 + ... of a fiftieth: more than a tenth after the sixth
    assert [verdict.accepted for verdict in verdicts] == [True] * 5 + [False] * 3
    assert verdicts[-1].reason == "worse by degrees"


def test_what_one_version_alone_may_not_do_it_may_not_do_where_little_is_owed() -> None:
    little = Harm(1e-9, 0.0, 1e-9)
    assert not judge(BEFORE, BEFORE * 1.051, np.ones(400), little)[0].accepted
    assert judge(BEFORE, BEFORE * 1.049, np.ones(400), little)[0].accepted


def test_what_is_owed_fades_and_is_made_up_for() -> None:
    _, harm = judge(BEFORE, BEFORE + 0.01, np.ones(400))
    assert harm.faded().rise == pytest.approx(MEMORY * 0.01)
    _, after = judge(BEFORE, BEFORE - 0.02, np.ones(400), harm.faded())
    assert after.faded() == Harm()


def test_who_makes_nothing_worse_is_not_turned_away_for_what_is_owed() -> None:
    verdict, _ = judge(BEFORE, BEFORE - 0.001, np.ones(400), Harm(1.0, 0.0, 1000.0))
    assert verdict.accepted


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_losses_that_are_not_finite_are_turned_away(value: float) -> None:
    after = BEFORE - 1
    after[7] = value
    assert verdict_on(BEFORE, after).reason == "not finite"


def test_one_example_or_none_speaks_for_nothing() -> None:
    assert verdict_on(np.zeros(0), np.zeros(0)).accepted
    assert verdict_on(np.zeros(1), np.ones(1)).accepted


def test_losses_before_that_are_not_finite_are_left_out() -> None:
    before, after = np.array([np.nan, 1.0, 1.0, 1.0]), np.array([1.0, 1.0, 1.0, 1.0])
    assert verdict_on(before, after).accepted


def test_losses_that_are_not_paired_are_an_error() -> None:
    with pytest.raises(ValueError, match="not paired"):
        verdict_on(BEFORE, BEFORE[1:])
