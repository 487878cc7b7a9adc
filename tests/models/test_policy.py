from __future__ import annotations

import numpy as np
import pytest

from models.batch import Shape
from models.lora import FACTORS
from models.policy import CALM, HEADS, POLICIES, WARM, Policy, learning
from models.ranker import initial

ONE = 1.0, 1.0
"""Losses of one list each."""


def watch(policy: Policy, batches: int, order: float = 1.0, probability: float = 0.3, seed: int = 0) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.1, (batches, 2))
    for a, b in noise.tolist():
        policy.saw(order + a, probability + b / 10, ONE)


def calm() -> Policy:
    policy = Policy("dynamic")
    watch(policy, 2 * CALM)
    assert policy.mode(WARM) == "sparse"
    return policy


def test_a_policy_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no policy 'some'; there are full, sparse"):
        Policy("some")


@pytest.mark.parametrize("name", POLICIES)
def test_a_young_model_learns_everything(name: str) -> None:
    assert Policy(name).mode(WARM - 1) == "full"


@pytest.mark.parametrize("name", ["full", "sparse", "head", "lora"])
def test_what_is_not_young_does_as_it_is_told_whatever_is_seen(name: str) -> None:
    policy = Policy(name)
    watch(policy, 2 * CALM)
    watch(policy, 20, order=3)
    assert policy.mode(WARM) == name


def test_heads_are_dense_weights() -> None:
    names = {*initial(Shape(), np.random.default_rng(0)), *FACTORS}
    assert learning("head", names) == {*HEADS}
    assert learning("lora", names) == {*HEADS} | FACTORS
    assert learning("full", names) == names - FACTORS
    assert learning("sparse", names) == frozenset()


def test_dynamic_does_not_rest_before_the_loss_has_been_level_for_a_while() -> None:
    policy = Policy("dynamic")
    watch(policy, CALM - 1)
    assert policy.mode(WARM) == "full"
    watch(policy, 1)
    assert policy.mode(WARM) == "sparse"


@pytest.mark.parametrize("rise", [{"order": 1.4}, {"probability": 0.34}])
def test_dynamic_wakes_when_either_loss_rises(rise: dict[str, float]) -> None:
    policy = calm()
    watch(policy, 10, **rise, seed=1)
    assert policy.mode(WARM) == "full"


@pytest.mark.parametrize("name", POLICIES)
def test_a_sudden_rise_is_told_once_by_any_policy(name: str) -> None:
    assert breaks(name, [0.0] * 200 + [1.0] * 200) == [201]


def test_a_rise_that_comes_slowly_is_none_that_came_at_once() -> None:
    assert breaks("dynamic", [0.0] * 200 + [k / 200 for k in range(200)]) == []


def breaks(name: str, rises: list[float]) -> list[int]:
    """Batches after which the world has changed, where the loss rises so."""
    policy, told = Policy(name), []
    noise = np.random.default_rng(0).normal(0, 0.1, len(rises))
    for k, (rise, more) in enumerate(zip(rises, noise.tolist(), strict=True)):
        policy.saw(1.0 + rise + more, 0.3, ONE)
        told += [k] * policy.broken
    return told


def test_dynamic_rests_on_when_the_loss_falls() -> None:
    policy = calm()
    watch(policy, 200, order=0.6, seed=1)
    assert policy.mode(WARM) == "sparse"


def test_dynamic_that_is_awake_waits_until_the_loss_has_fallen() -> None:
    policy = calm()
    watch(policy, 40, order=2.0, seed=1)
    watch(policy, CALM - 20, order=1.0, seed=2)
    assert policy.mode(WARM) == "full"
    watch(policy, CALM, order=1.0, seed=3)
    assert policy.mode(WARM) == "sparse"


def test_batches_without_a_loss_say_nothing_of_it() -> None:
    policy = calm()
    for _ in range(50):
        policy.saw(float("nan"), float("nan"), ONE)
    assert policy.mode(WARM) == "sparse"
    watch(policy, 10, order=1.4, seed=1)
    assert policy.mode(WARM) == "full"


def test_dynamic_goes_on_from_its_state() -> None:
    one, other = calm(), Policy("dynamic")
    other.load_state(one.state())
    assert other.mode(WARM) == "sparse"
    for policy in (one, other):
        watch(policy, 10, order=1.4, seed=1)
    np.testing.assert_array_equal(one.state()["levels"], other.state()["levels"])
    assert other.mode(WARM) == "full"
