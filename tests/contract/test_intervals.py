"""The interval of `experiment` and `lift` keeps its word: looked at every minute, it holds the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.contract.intervals import ALPHA, CHOICES, Side, Visitors, of_lift, of_rate, side, simulate

STAY = Visitors(count=100, rate=0.05)
COME_AND_GO = Visitors(count=30, rate=0.05, leave=True)
RARE = Visitors(count=30, rate=0.005, leave=True)
FEW = Visitors(count=40, rate=0.05, pages=0.2)
DIFFER = Visitors(count=300, rate=0.03, differ=1.0)
EXPERIMENTS = 400


def arm(visitors: Visitors, seed: int, experiments: int = EXPERIMENTS) -> Side:
    return side(*simulate(visitors, experiments, np.random.default_rng(seed)))


def test_the_view_computes_what_is_simulated_here(store, put):
    n, c = (
        np.stack(each)[:, 0]
        for each in zip(
            simulate(RARE, 1, np.random.default_rng(1)),
            simulate(replace(RARE, rate=0.01), 1, np.random.default_rng(2)),
            strict=True,
        )
    )
    for k, look in enumerate((1, 7, 59)):
        rows = ["second arm bucket impressions clicks"]
        rows += [
            f"0 {name} {b} {int(n[i, look, b])} {int(c[i, look, b])}"
            for i, name in enumerate("ab")
            for b in range(n.shape[2])
            if n[i, look, b]
        ]
        put("experiment", "\n".join(rows), version=k + 1)  # counts are cumulative: the newest stands
        a, b = (side(n[i : i + 1, look : look + 1], c[i : i + 1, look : look + 1]) for i in (0, 1))
        (row,) = store.query("SELECT * FROM {db}.lift WHERE arm = 'a' AND against = 'b'")
        for low, high, here in (
            ("ctr_low", "ctr_high", of_rate(a)),
            ("lift_low", "lift_high", of_lift(a, b)),
        ):
            wanted = [None if np.isnan(x) else pytest.approx(x.item()) for x in (here.low, here.high)]
            assert [row[low], row[high]] == wanted, look


@pytest.mark.parametrize("lift", [0.0, 0.5])
@pytest.mark.parametrize("visitors", [STAY, COME_AND_GO, RARE, FEW, DIFFER])
def test_sixty_looks_miss_the_truth_no_more_often_than_said(visitors, lift):
    ours = arm(replace(visitors, rate=visitors.rate * (1 + lift)), 1)
    against = arm(visitors, 2)
    assert of_lift(ours, against).ever_misses(lift) <= ALPHA
    assert of_rate(against).ever_misses(visitors.rate) <= ALPHA


@pytest.mark.parametrize("visitors", [STAY, COME_AND_GO, DIFFER])
def test_of_the_few_explored_places_of_a_choice_too(visitors):
    """Every 20th place is explored, every 10th of these shows the choice: with one weight, a thin sample."""
    rng = np.random.default_rng(3)
    n, c = simulate(replace(visitors, pages=4 * visitors.pages), EXPERIMENTS, rng)
    clicked, rest = (np.diff(x, axis=1, prepend=0).astype(np.int64) for x in (c, n - c))
    clicked, rest = (rng.binomial(x, 1 / 200).cumsum(1) for x in (clicked, rest))
    choice = side(clicked + rest, clicked)
    assert 100 < choice.n[:, -1].mean() < 3000
    assert of_rate(choice, CHOICES).ever_misses(visitors.rate) <= ALPHA


def test_an_interval_for_one_look_would_miss_it():
    ours, against = arm(COME_AND_GO, 1), arm(COME_AND_GO, 2)
    naive = of_lift(ours, against, np.full(ours.n.shape, 1.96))
    assert naive.ever_misses(0.0) > 3 * ALPHA


def test_without_differences_between_visitors_in_the_variance_it_would_miss():
    """One bucket per impression, so to speak: the error that independent impressions would have."""
    ours, against = arm(DIFFER, 1), arm(DIFFER, 2)
    independent = [each._replace(error=1 / np.sqrt(each.n * each.rate)) for each in (ours, against)]
    assert of_lift(*independent).ever_misses(0.0) > 2 * of_lift(ours, against).ever_misses(0.0)
    assert of_lift(*independent).ever_misses(0.0) > ALPHA


def test_it_shrinks_with_the_root_of_the_visitors():
    def reach(visitors: Visitors) -> float:
        found = of_lift(arm(visitors, 1, 100), arm(visitors, 2, 100))
        return float(np.median(np.log1p(found.high[:, -1]) - np.log1p(found.low[:, -1])))

    wide, narrow = reach(COME_AND_GO), reach(replace(COME_AND_GO, count=4 * COME_AND_GO.count))
    assert 1.8 < wide / narrow < 2.2


def test_it_finds_a_lift_that_is_there():
    better = arm(replace(COME_AND_GO, rate=2 * COME_AND_GO.rate), 1)
    assert of_lift(better, arm(COME_AND_GO, 2)).ever_excludes(0.0).mean() > 0.95
