"""Each feature of one scene, worked out by hand."""

from __future__ import annotations

from math import log, log1p

import numpy as np
import pytest

from models.amounts import AMOUNTS
from models.batch import FEATURE, FEATURES, Array, F, Shape
from models.covisitation import BACK, scratch
from models.table import Table
from stream.ids import hash_id
from stream.messages import Item
from stream.rank.catalogue import Catalogue
from stream.rank.features import write_features
from stream.rank.known import Known, Limits
from stream.rank.models import unknowing
from stream.rank.visitors import (
    A_LIST,
    A_SEARCH,
    ACT_ELSEWHERE,
    ACT_IN_LIST,
    DISMISSED,
    Memory,
    blank_memory,
)
from tests.stream.rank.stage import T

SHAPE = Shape(
    rows=16, cold=4, categories=16, history=4, neighbours=2,
    half_life_short=3600, half_life_long=7200, history_half_life=600, near_half_life=1000,
)  # fmt: skip
A, B, C, D, UNKNOWN = (hash_id(name) for name in "ABCD?")
LIMITS = Limits(session_gap=1_800_000, list_window=3_600_000, exclude_bought=True, next_per_second=20)
HOUR = 3_600_000
AFTER, OFTEN = [70, 60], [100, 90]
"""Bytes of the neighbour A: from B, from D."""


def _catalogue() -> Catalogue:
    catalogue = Catalogue(100, SHAPE.categories)
    catalogue.put(Item(item_id="A", category="shoes", brand="x", price=20, published_at=T - 10_000), T)
    catalogue.put(Item(item_id="B", category="shoes", brand="y", price=10), T)
    catalogue.put(Item(item_id="C", category="hats", brand="x", price=40), T)
    return catalogue


def _known() -> Known:
    table = Table(SHAPE.rows)
    table.put(np.array([A, B, D], np.uint64), np.array([4, 5, 6]))
    known = unknowing(SHAPE)._replace(
        keys=table.keys, rows=table.rows, prior=np.array([0.1, 0.05, 0.2, 0.02], np.float32),
        stats=np.zeros((16, 8), np.float32), stats_at=np.full(16, T - HOUR),
        first_seen=np.full(16, T - 2000),
        near=np.zeros((16, 2), np.uint64), near_weight=np.zeros((16, 2), np.float32),
        near_next=np.zeros((16, 2), np.uint8), near_often=np.zeros((16, 2), np.uint8),
        near_at=np.full(16, T - 1_000_000),
    )  # fmt: skip
    # impressions, clicks, touches (short); impressions, clicks, touches, carts, purchases (long)
    known.stats[4] = [40, 4, 8, 100, 10, 30, 4, 2]
    known.category_stats[:] = [60, 6, 0, 0, 0, 0, 0, 0]
    known.category_stats_at[:] = T - HOUR
    known.near[5], known.near_weight[5] = [A, C], [0.8, 0.3]
    known.near[6, 0], known.near_weight[6, 0] = A, 0.5
    known.near_next[5, 0], known.near_next[6, 0] = AFTER
    known.near_often[5, 0], known.near_often[6, 0] = OFTEN
    return known


def _memory() -> Memory:
    """A visitor who touched B (10 minutes ago) and A before, in a session of 20 minutes."""
    memory = blank_memory(2, SHAPE.history, 3)
    visitor, entry = memory.visitor[1], memory.history[1]
    visitor["user"], visitor["last_ts"], visitor["session_ts"] = 77, T - 5000, T - 1_200_000
    visitor["steps"], visitor["session_clicks"], visitor["click_place"] = 6, 2, 3
    visitor["last"] = ACT_IN_LIST
    shoes, x, y = (_catalogue().items[i][name] for i, name in ((0, "category"), (0, "brand"), (1, "brand")))
    entry[0] = (B, T - 600_000, 10, 5, shoes, y, 4, 2, 1, 0, 0)
    entry[1] = (A, T - 1_300_000, 30, 3, shoes, x, 2, 1, 1, 1, 0)
    entry[2] = (D, T - 600_000, -1, 1, 0, 0, 1, 0, 0, 0, 0)
    memory.ring[1:7] = [C, A, B, A, A, C]
    memory.head[0] = 7
    lists = memory.lists[["offset", "ts", "start", "size"]]
    lists[1, 0], lists[1, 1] = (8, T - 9000, 4, 3), (7, T - 90_000, 1, 3)
    return memory


def _write(
    items: list[int], *, foreign: bool = True, prices: list[float] | None = None,
    memory: Memory | None = None, now: int = T,
) -> Array:  # fmt: skip
    out = np.full((len(items), F), np.nan, np.float32)
    write_features(
        out, np.zeros(len(items), np.uint16), np.array(items, np.uint64),
        np.array(prices or [-1] * len(items), np.float32), foreign, 1, now, memory or _memory(),
        _known(), _catalogue().known(), LIMITS, scratch(SHAPE.history, SHAPE.neighbours),
    )  # fmt: skip
    return out


def _of(out: Array, i: int) -> dict[str, float]:
    return dict(zip(FEATURES, out[i].tolist(), strict=True))


SHORT, LONG = 0.5, 2**-0.5
"""What an hour leaves of the counts."""
CLICKS = LONG * (30 - 4 - 2)
PAIRS = 2**-1
"""What 1,000 s leave of the pairs."""
WORTH_B, WORTH_D = 2**-1 * PAIRS, BACK**2 * 2**-1 * PAIRS
FROM_B, FROM_D = WORTH_B * 0.8, WORTH_D * 0.5
TASTE = 1 + 0.9 + 0.81

EXPECTED = {
    "shown": log1p(20),
    "touched": log1p(4),
    "ctr": (2 + 20 * 0.1) / (20 + 20),
    "ctr_long": (LONG * 10 + 20 * 0.05) / (LONG * 100 + 20),
    "popularity": log1p(LONG * 30),
    "cart_rate": (LONG * 4 + 20 * 0.2) / (CLICKS + 20),
    "purchase_rate": (LONG * 2 + 20 * 0.02) / (CLICKS + 20),
    "item_age": log1p(10),
    "category_ctr": (3 + 20 * 0.1) / (30 + 20),
    "list_size": log1p(3),
    "prior_rank": 2,
    "price": log1p(20),
    "price_rank": 1 / 3,
    "price_to_median": 0,
    "price_to_min": log(20.01 / 10.01),
    "price_to_own": log(20.01 / 20.01),
    "list_recency": 1 / 2,
    "same_list": 0,
    "from_touched": 1,
    "from_clicked": 2 - 3,
    "own_events": 3,
    "own_age": log1p(1300),
    "own_recency": 1 / 2,
    "own_clicks": 2,
    "own_list_clicks": 1,
    "own_carts": 1,
    "own_purchases": 1,
    "own_session": 0,
    "seen": 3,
    "seen_age": log1p(9),
    "seen_place": 1,
    "category_share": (1 + 0.9) / TASTE,
    "category_last": 1,
    "brand_share": 0.9 / TASTE,
    "near_sum": FROM_B + FROM_D,
    "near_max": FROM_B,
    "near_last": PAIRS * 0.8,
    "near_items": 2,
    "next_sum": WORTH_B * AMOUNTS[AFTER[0]] + WORTH_D * AMOUNTS[AFTER[1]],
    "often_sum": PAIRS * AMOUNTS[OFTEN].sum(),
    "steps": log1p(6),
    "session_age": log1p(1200),
    "idle": log1p(5),
    "after_act": 0,
    "after_list_click": 1,
    "after_search": 0,
    "history_size": 3,
    "session_clicks": log1p(2),
}


def test_the_scene_has_every_feature() -> None:
    assert EXPECTED.keys() >= FEATURE.keys()


@pytest.mark.parametrize("name", FEATURES)
def test_feature_of_a_known_item_in_a_foreign_list(name: str) -> None:
    assert _of(_write([B, A, C]), 1)[name] == pytest.approx(EXPECTED[name], rel=1e-5, abs=1e-6)


def test_an_item_of_which_nothing_is_known() -> None:
    found = _of(_write([B, UNKNOWN, C]), 1)
    expected = {
        "shown": 0, "touched": 0, "popularity": 0, "ctr": 0.1, "ctr_long": 0.05, "cart_rate": 0.2,
        "purchase_rate": 0.02, "item_age": -1, "price": -1, "price_rank": -1, "price_to_median": -1,
        "price_to_min": -1, "price_to_own": -1, "own_events": 0, "own_age": 0, "own_recency": 0, "seen": 0,
        "seen_age": -1, "seen_place": 0, "category_share": 0, "category_last": 0, "near_sum": 0,
        "near_max": 0, "near_last": 0, "near_items": 0, "next_sum": 0, "often_sum": 0,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_an_item_that_the_catalogue_does_not_have_is_as_old_as_when_first_seen() -> None:
    assert _of(_write([D]), 0)["item_age"] == pytest.approx(log1p(2))


def test_a_slate_of_ours_tells_nothing_of_its_own_list() -> None:
    found = _of(_write([B, A, C], foreign=False), 1)
    of_list = (
        "list_size", "prior_rank", "price_rank", "price_to_median", "price_to_min", "list_recency",
        "same_list",
    )  # fmt: skip
    assert [found[name] for name in of_list] == [0] * len(of_list)
    assert (found["from_touched"], found["from_clicked"]) == (-30, -30)
    assert found["own_events"] == 3


def test_a_price_in_the_event_wins_over_the_catalogue() -> None:
    out = _write([A, B], prices=[5, -1])
    assert out[0, FEATURE["price"]] == pytest.approx(log1p(5))
    assert out[1, FEATURE["price"]] == pytest.approx(log1p(10))
    assert out[:, FEATURE["price_rank"]].tolist() == [0, 0.5]


def test_equal_and_free_prices() -> None:
    out = _write([A, B, C], prices=[0, 7, 7])
    assert out[:, FEATURE["price"]] == pytest.approx([0, log1p(7), log1p(7)])
    assert out[:, FEATURE["price_rank"]] == pytest.approx([0, 1 / 3, 1 / 3])
    assert out[1, FEATURE["price_to_min"]] == pytest.approx(log(7.01 / 0.01))


def test_the_same_list_again() -> None:
    assert _write([A, A, C])[:, FEATURE["same_list"]].tolist() == [1, 1, 1]
    assert _write([A, C, A])[:, FEATURE["same_list"]].tolist() == [0, 0, 0]
    assert _write([A, A])[:, FEATURE["same_list"]].tolist() == [0, 0]


def test_places_are_counted_from_the_item_of_the_list_that_was_touched_last() -> None:
    out = _write([C, D, A])  # B, which was touched after both, is not in the list
    assert out[:, FEATURE["list_recency"]].tolist() == [0, 0.5, 1]
    assert out[:, FEATURE["from_touched"]].tolist() == [-2, -1, 0]


@pytest.mark.parametrize(
    ("last", "expected"), [(A_LIST, [0, 0, 0]), (ACT_ELSEWHERE, [1, 0, 0]), (A_SEARCH, [0, 0, 1])]
)
def test_what_came_just_before_the_list(last: int, expected: list[int]) -> None:
    memory = _memory()
    memory.visitor[1]["last"] = last
    found = _of(_write([A], memory=memory), 0)
    assert [found[name] for name in ("after_act", "after_list_click", "after_search")] == expected


def test_items_that_the_ring_has_lost_were_not_seen() -> None:
    memory = _memory()
    memory.head[0] = 4 + len(memory.ring) + 1
    out = _write([A, A, C], memory=memory)
    assert out[:, FEATURE["seen"]].tolist() == [0, 0, 0]
    assert out[:, FEATURE["seen_age"]].tolist() == [-1, -1, -1]
    assert out[:, FEATURE["same_list"]].tolist() == [0, 0, 0]


def test_after_the_gap_the_session_is_new() -> None:
    found = _of(_write([B, A, C], now=T - 5000 + LIMITS.session_gap + 1), 1)
    session = ("steps", "session_age", "session_clicks", "own_session", "after_list_click")
    assert [found[name] for name in session] == [0] * len(session)
    assert found["from_clicked"] == -30
    assert found["idle"] == pytest.approx(log1p(1800.001))
    assert _of(_write([B, A, C], now=T - 5000 + LIMITS.session_gap), 1)["steps"] == pytest.approx(log1p(6))


def test_an_event_of_the_past_has_no_negative_ages() -> None:
    found = _write([B, A, C], now=T - HOUR * 100)
    ages = [FEATURE[name] for name in ("own_age", "seen_age", "session_age", "idle")]
    assert (found[:, ages] >= -1).all()
    assert np.isfinite(found).all()


def test_a_visitor_without_events() -> None:
    found = _of(_write([B, A, C], memory=blank_memory(2, SHAPE.history, 3)), 1)
    own = ("own_events", "seen", "category_share", "near_sum", "steps", "session_age", "idle", "history_size")
    assert [found[name] for name in own] == [0] * len(own)
    assert (found["price_to_own"], found["from_touched"], found["from_clicked"]) == (-1, -30, -30)


def test_what_was_dismissed_is_no_taste() -> None:
    memory = _memory()
    memory.history[1, 0]["flags"] = DISMISSED
    found = _of(_write([B, A, C], memory=memory), 1)
    assert found["near_sum"] == found["near_max"] == pytest.approx(FROM_D / BACK)
    assert found["near_items"] == 1
    assert found["category_last"] == 0
    assert found["category_share"] == pytest.approx(1 / 1.9)
