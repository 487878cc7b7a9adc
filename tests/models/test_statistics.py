from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.batch import FEATURE, FEATURES, STATISTICS, F
from models.statistics import (
    PSEUDO,
    Statistics,
    buckets_in,
    write_category_features,
    write_context_features,
    write_item_features,
)

SHORT, LONG = 10.0, 1000.0
T = 1_700_000_000_000
AT = {name: index for index, name in enumerate(STATISTICS)}


def made(rows: int = 8) -> Statistics:
    return Statistics(rows, SHORT, LONG)


def shown(statistics: Statistics, rows: list[int], ts: list[int]) -> None:
    statistics.count_impressions(np.array(rows), np.array(ts))


def acted(statistics: Statistics, events: list[tuple[int, int, int, int]]) -> None:
    rows, tasks, listed, ts = (np.array(column) for column in zip(*events, strict=True))
    statistics.count_acts(rows, tasks.astype(np.uint8), listed.astype(np.uint8), ts)


def features(statistics: Statistics, row: int, now: int, born: int = 0) -> dict[str, float]:
    out = np.full(F, np.nan, np.float32)
    write_item_features(
        out, row, statistics.stats, statistics.stats_at, born, now, statistics.prior(), SHORT, LONG
    )
    write_category_features(
        out, max(row, 0), statistics.stats, statistics.stats_at, now, statistics.prior(), SHORT
    )
    return dict(zip(FEATURES, out.tolist(), strict=True))


def test_count_halves_in_each_half_life():
    statistics = made()
    shown(statistics, [1, 1], [T, T + 10_000])
    assert statistics.stats[1, AT["impressions_short"]] == pytest.approx(0.5 + 1)
    assert statistics.stats[1, AT["impressions_long"]] == pytest.approx(2**-0.01 + 1)
    assert statistics.stats_at[1] == T + 10_000


def test_late_event_is_added_faded_and_time_does_not_go_back():
    statistics = made()
    shown(statistics, [1], [T + 20_000])
    shown(statistics, [1], [T])
    assert statistics.stats[1, AT["impressions_short"]] == pytest.approx(1.25)
    assert statistics.stats_at[1] == T + 20_000
    assert statistics.first_seen[1] == T


EVENTS = st.lists(
    st.tuples(st.integers(-1, 3), st.integers(0, 2), st.integers(0, 1), st.integers(T, T + 60_000)),
    min_size=1,
    max_size=40,
)
FEW = settings(deadline=None, derandomize=True, max_examples=50)


@FEW
@given(EVENTS, st.randoms(use_true_random=False))
def test_order_of_events_does_not_matter(events, random):
    one, other = made(), made()
    acted(one, events)
    shuffled = list(events)
    random.shuffle(shuffled)
    acted(other, shuffled)
    np.testing.assert_allclose(one.stats, other.stats, rtol=1e-4)
    np.testing.assert_array_equal(one.stats_at, other.stats_at)
    np.testing.assert_array_equal(one.first_seen, other.first_seen)


@FEW
@given(EVENTS)
def test_counts_are_the_sums_of_the_definition(events):
    statistics = made()
    acted(statistics, events)
    for row in range(4):
        mine = [(task, listed, ts) for r, task, listed, ts in events if r == row]
        at = max((ts for *_, ts in mine), default=0)
        expected = dict.fromkeys(STATISTICS, 0.0)
        for task, listed, ts in mine:
            for name, half_life in (("short", SHORT), ("long", LONG)):
                worth = 0.5 ** ((at - ts) / 1000 / half_life)
                expected[f"touches_{name}"] += worth
                expected[f"clicks_{name}"] += worth * (task == 0 and listed)
            expected["carts_long"] += worth * (task == 1)
            expected["purchases_long"] += worth * (task == 2)
        np.testing.assert_allclose(statistics.stats[row], list(expected.values()), rtol=1e-4)


def test_row_of_nobody_is_ignored():
    statistics = made()
    shown(statistics, [-1], [T])
    acted(statistics, [(-1, 0, 1, T)])
    assert not statistics.stats.any()
    assert not statistics.dirty.flags.any()
    np.testing.assert_array_equal(statistics.prior(), made().prior())
    shown(statistics, [7], [T])  # the last row, which -1 must not mean
    statistics.clear(np.array([-1]))
    assert statistics.stats_at[7] == T


def test_cleared_row_starts_from_nothing_and_is_to_be_published():
    statistics = made()
    shown(statistics, [3], [T])
    statistics.dirty.take(9)
    statistics.clear(np.array([3]))
    assert not statistics.stats[3].any()
    assert statistics.stats_at[3] == statistics.first_seen[3] == 0
    assert statistics.dirty.take(9).tolist() == [3]


def test_changed_rows_are_dirty():
    statistics = made()
    shown(statistics, [2, 5], [T, T])
    acted(statistics, [(6, 1, 0, T)])
    assert statistics.dirty.take(9).tolist() == [2, 5, 6]


def test_features_of_an_item_without_events_are_the_prior():
    statistics = made()
    shown(statistics, [1] * 60, [T] * 60)
    prior = statistics.prior().tolist()
    for row in (-1, 5):
        got = features(statistics, row, T)
        assert [got[n] for n in ("ctr", "ctr_long", "cart_rate", "purchase_rate")] == pytest.approx(prior)
        assert got["shown"] == got["touched"] == got["popularity"] == 0
        assert got["item_age"] == -1


def test_features_are_decayed_to_now_and_smoothed():
    statistics = made()
    shown(statistics, [1] * 40, [T] * 40)
    acted(statistics, [(1, 0, 1, T)] * 8 + [(1, 0, 0, T)] * 2 + [(1, 1, 0, T)] * 3 + [(1, 2, 0, T)])
    prior = statistics.prior()
    got = features(statistics, 1, T + 10_000, born=T - 90_000)
    fade = 0.5 ** (10 / LONG)
    assert got["shown"] == pytest.approx(math.log1p(20))
    assert got["touched"] == pytest.approx(math.log1p(7))
    assert got["ctr"] == pytest.approx((4 + PSEUDO * prior[0]) / (20 + PSEUDO))
    assert got["category_ctr"] == pytest.approx(got["ctr"])
    assert got["ctr_long"] == pytest.approx((8 * fade + PSEUDO * prior[1]) / (40 * fade + PSEUDO))
    assert got["popularity"] == pytest.approx(math.log1p(14 * fade))
    assert got["cart_rate"] == pytest.approx((3 * fade + PSEUDO * prior[2]) / (10 * fade + PSEUDO))
    assert got["purchase_rate"] == pytest.approx((1 * fade + PSEUDO * prior[3]) / (10 * fade + PSEUDO))
    assert got["item_age"] == pytest.approx(math.log1p(100))


def test_list_older_than_the_counts_does_not_make_them_grow():
    statistics = made()
    shown(statistics, [1], [T])
    assert features(statistics, 1, T - 60_000)["shown"] == pytest.approx(math.log(2))
    assert features(statistics, 1, T - 60_000, born=T)["item_age"] == 0


def test_only_counted_features_are_written():
    got = features(made(), 1, T)
    written = {name for name, value in got.items() if not math.isnan(value)}
    assert written == set(FEATURES[: FEATURE["category_ctr"] + 1])


def test_prior_is_the_mean_rate_of_what_was_counted():
    statistics = made()
    shown(statistics, [1, 2] * 5000, [T] * 10_000)
    acted(statistics, [(1, 0, 1, T)] * 1000 + [(2, 1, 0, T)] * 100 + [(2, 2, 0, T)] * 50)
    np.testing.assert_allclose(statistics.prior(), [0.1, 0.1, 0.1, 0.05], rtol=0.03)


def test_trending_is_by_touches_faded_to_one_time():
    statistics = made()
    acted(statistics, [(1, 0, 0, T)] * 3 + [(2, 0, 0, T + 20_000), (4, 0, 0, T + 20_000)])
    ids = np.array([0, 9, 8, 7, 6, 0, 0, 0], np.uint64)
    # row 1: 3 x 1/4; rows 2 and 4 equal, the smaller id first; row 3 untouched
    assert statistics.trending(T + 20_000, 9, ids).tolist() == [4, 2, 1, 3]
    assert statistics.trending(T + 20_000, 2, ids).tolist() == [4, 2]


def test_trending_tells_counts_apart_that_have_all_but_faded():
    statistics = made()
    acted(statistics, [(1, 0, 0, T)] * 2 + [(2, 0, 0, T)] * 3)
    ids = np.array([0, 1, 2, 0, 0, 0, 0, 0], np.uint64)
    assert statistics.trending(T + 10_000_000, 2, ids).tolist() == [2, 1]


def test_restored_statistics_count_on_as_if_never_stopped():
    one, other = made(600), made(600)
    shown(one, [1, 300], [T, T])
    acted(other, [(599, 0, 0, T)])  # forgotten by the restore
    other.load_state({name: array.copy() for name, array in one.state().items()})
    for statistics in (one, other):
        acted(statistics, [(1, 0, 1, T + 5000)])
    for name, array in one.state().items():
        np.testing.assert_array_equal(array, other.state()[name])
    np.testing.assert_array_equal(one.prior(), other.prior())


HERE, PHONE, CATEGORY = 12345, 67890, 3


def in_context(statistics: Statistics, context: int, clicks: int, impressions: int) -> None:
    """Count for `CATEGORY` in one context."""
    contexts, categories = np.full(impressions, context, np.uint64), np.full(impressions, CATEGORY)
    buckets = buckets_in(contexts, categories, len(statistics.stats))
    statistics.count_impressions(buckets, np.full(impressions, T))
    zeros, ones = np.zeros(clicks, np.uint8), np.ones(clicks, np.uint8)
    statistics.count_acts(buckets[:clicks], zeros, ones, np.full(clicks, T))


def category_ctr(statistics: Statistics, *context: int, category: int = CATEGORY) -> float:
    """The feature, where the category has a rate of 0.1 in general."""
    out = np.full(F, 0.1, np.float32)
    padded = np.array([*context, 0, 0, 0, 0][:4], np.uint64)
    write_context_features(out, category, padded, statistics.stats, statistics.stats_at, T, 60.0)
    return float(out[FEATURE["category_ctr"]])


def test_a_category_is_clicked_as_often_as_in_the_context_smoothed():
    statistics = Statistics(64, 60, 600)
    in_context(statistics, HERE, clicks=20, impressions=100)
    here = (20 + PSEUDO * 0.1) / (100 + PSEUDO)
    assert category_ctr(statistics, HERE) == pytest.approx(here)
    in_context(statistics, PHONE, clicks=0, impressions=20)
    phone = PSEUDO * 0.1 / (20 + PSEUDO)
    assert category_ctr(statistics, PHONE) == pytest.approx(phone)
    assert category_ctr(statistics, HERE, PHONE) == pytest.approx(0.1 * (here / 0.1) * (phone / 0.1))


def test_what_was_not_counted_in_a_context_is_as_elsewhere():
    statistics = Statistics(64, 60, 600)
    in_context(statistics, HERE, clicks=20, impressions=100)
    assert category_ctr(statistics) == pytest.approx(0.1)
    assert category_ctr(statistics, PHONE) == pytest.approx(0.1)
    assert category_ctr(statistics, HERE, category=CATEGORY + 1) == pytest.approx(0.1)
    in_context(statistics, 0, clicks=20, impressions=100)
    assert category_ctr(statistics, 0, HERE) == pytest.approx(0.1)


def test_an_unknown_category_tells_nothing():
    statistics = Statistics(64, 60, 600)
    buckets = buckets_in(np.full(100, HERE, np.uint64), np.zeros(100, np.int64), 64)
    statistics.count_impressions(buckets, np.full(100, T))
    assert category_ctr(statistics, HERE, category=0) == pytest.approx(0.1)
