"""Newcomers are helped by what is known of them: items by their content, visitors by their clicks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.experiments.cold_start import (
    CLICKS,
    CONTEXT,
    POPULAR,
    STRANGERS,
    Experiment,
    Newcomers,
    Share,
    advantage,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


SEEDS = 3
"""Shops of which the figures are taken together: in one alone, what a context is worth is told by a hair."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Newcomers:
    torch.set_num_threads(1)
    found = Newcomers()
    for seed in range(SEEDS):
        found.add(Experiment(tmp_path_factory.mktemp("cold"), seed).run(360.0))
    return found


def test_content_brings_new_items_before_those_who_would_like_them(found: Newcomers) -> None:
    assert found.recall[True].of > 300
    assert found.recall[True].rate > found.recall[False].rate


def test_content_raises_the_ctr_of_the_first_impressions(found: Newcomers) -> None:
    assert found.items[True].of > 1000
    assert clearly_more(found.items[True], found.items[False])


def test_the_first_page_is_better_than_what_is_popular(found: Newcomers) -> None:
    assert np.mean(found.first[STRANGERS]) > 1.2 * np.mean(found.first[POPULAR])


def test_a_context_makes_the_first_page_better(found: Newcomers) -> None:
    more, error = advantage(found, CONTEXT, STRANGERS)
    assert more > 3 * error


@pytest.mark.parametrize("clicks", CLICKS[1:])
def test_after_few_clicks_slates_are_better_than_what_is_popular(found: Newcomers, clicks: int) -> None:
    assert clearly_more(found.visitors["fresh", clicks], found.visitors["popularity", clicks])


def clearly_more(one: Share, other: Share) -> bool:
    """By three standard errors of the difference."""
    return one.rate - other.rate > 3 * math.hypot(one.error, other.error)
