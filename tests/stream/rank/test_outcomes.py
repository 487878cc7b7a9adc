"""What is counted, from events by hand."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest

from stream.counts import BLOCK
from stream.messages import (
    CUBES,
    Cart,
    Click,
    Dismiss,
    Impression,
    Item,
    Purchase,
    Refund,
    Search,
    decode_outcomes,
)
from stream.rank.outcomes import broker_seconds
from tests.stream.rank.stage import Stage, T

S = T // 1000


def _rows(stage: Stage, cube: str, *dims: str) -> dict[Any, dict[str, float]]:
    """Sums that are not 0, by these dimensions."""
    columns = stage.counted(cube)
    found: dict[Any, dict[str, float]] = defaultdict(Counter)
    for i in range(len(columns.get("second", []))):
        key = tuple(columns[d][i] for d in dims)
        for name in CUBES[cube].sums:
            if columns[name][i]:
                found[key if len(key) > 1 else key[0]][name] += columns[name][i]
    return {key: dict(row) for key, row in found.items()}


def _health(stage: Stage) -> dict[Any, float]:
    rows = _rows(stage, "health", "counter", "second")
    return {key: row["count"] for key, row in rows.items()}


def test_impressions_count_by_place_and_feedback_under_its_list(stage: Stage) -> None:
    stage.feed(
        Impression(user_id="u", ts=T, items=["a", "b"], surface="home"),
        Click(user_id="u", ts=T + 2000, item_id="b"),
        Cart(user_id="u", ts=T + 2000, item_id="b"),
        Purchase(user_id="u", ts=T + 3000, item_id="b", price=19.99, quantity=3),
        Click(user_id="u", ts=T, item_id="elsewhere"),
    )
    assert _rows(stage, "ctr", "second", "arm", "surface", "position") == {
        (S, "fresh", "home", 1): {"impressions": 1},
        (S, "fresh", "home", 2): {"impressions": 1},
        (S + 2, "fresh", "home", 2): {"clicks": 1, "carts": 1},
        (S + 3, "fresh", "home", 2): {"purchases": 1, "revenue": 3 * 19.99},
        (S, "fresh", "", 0): {"clicks": 1},
    }


def test_a_price_counts_as_revenue_only_when_it_is_paid(stage: Stage) -> None:
    stage.feed(
        Click(user_id="u", ts=T, item_id="a", price=5),
        Purchase(user_id="u", ts=T, item_id="a"),
        Refund(user_id="u", ts=T, item_id="a", price=5),
        Dismiss(user_id="u", ts=T, item_id="a"),
    )
    assert _rows(stage, "ctr", "position") == {0: {"clicks": 1, "purchases": 1}}


def test_revenue_is_as_exact_as_the_prices(stage: Stage) -> None:
    prices = [19.99, 0.1, 123_456.78]
    stage.feed(*(Purchase(user_id="u", ts=T, item_id="a", price=price) for price in prices))
    assert _rows(stage, "items", "item_id")["a"]["revenue"] == pytest.approx(sum(prices), rel=1e-15)


def test_items_count_by_the_minute(stage: Stage) -> None:
    stage.feed(
        Impression(user_id="u", ts=T + 59_999, items=["a", "a", "b"]),
        Click(user_id="v", ts=T + 60_000, item_id="a"),
    )
    assert _rows(stage, "items", "second", "item_id") == {
        (S, "a"): {"impressions": 2},
        (S, "b"): {"impressions": 1},
        (S + 60, "a"): {"clicks": 1},
    }


def test_a_bucket_is_of_a_user(stage: Stage) -> None:
    users = [f"user-{i}" for i in range(60)]
    stage.feed(*(Impression(user_id=u, ts=T, items=["a", "b", "c"]) for u in users))
    stage.feed(*(Click(user_id=u, ts=T, item_id="a") for u in users))
    rows = _rows(stage, "experiment", "bucket")
    assert all(row["impressions"] == 3 * row["clicks"] for row in rows.values())
    assert sum(row["clicks"] for row in rows.values()) == 60
    assert 20 < len(rows) <= 32


def test_diversity_of_a_list(stage: Stage) -> None:
    stage.items(
        Item(item_id="a", category="x", published_at=T - 59_999),
        Item(item_id="b", category="x", published_at=T - 60_000),
        Item(item_id="c", category="y", published_at=T + 5),
    )
    slot = stage.rank.slots["fresh"]
    slot.known = slot.known._replace(total=7.0)
    stage.feed(Impression(user_id="u", ts=T, items=["a", "b", "c", "unknown"]))
    (row,) = _rows(stage, "diversity", "arm").values()
    # (0 + 1) of (7 + 1) impressions is 3 bits
    assert row == {"lists": 1, "items": 4, "pairs": 3, "apart": 2, "surprise": 12, "young": 1}


def test_every_record_is_consumed_and_then_one_of_three(stage: Stage) -> None:
    click = Click(user_id="u", ts=T, item_id="a", event_id="e")
    search = Search(user_id="u", ts=T, query="")
    stage.feed(click, click, b"{", b'{"type":"clik"}', b'{"type":"klick"}', search)
    rows = _rows(stage, "health", "counter", "reason")
    dead = {reason: row["count"] for (counter, reason), row in rows.items() if counter == "dead"}
    processed = {counter: row["count"] for (counter, _), row in rows.items() if counter != "dead"}
    assert processed == {"consumed": 6, "processed": 2, "repeated": 1, "unlisted": 1}
    assert dead == {"Input data was truncated": 1, "Invalid value '...' - at `$.type`": 2}
    assert _health(stage) == {}  # what was taken is not sent again
    stage.feed(click)
    found = {counter: n for (counter, _), n in _health(stage).items()}
    assert found == {"consumed": 7, "repeated": 2}


def test_each_record_counts_in_its_own_second_however_batches_are_cut(tmp_path: Any) -> None:
    events = [Click(user_id="u", ts=T + 700 * i, item_id="a") for i in range(6)]
    whole, apart = Stage(tmp_path / "whole"), Stage(tmp_path / "apart")
    whole.feed(b"{", *events)
    for event in (b"{", *events):
        apart.feed(event)
    assert _health(whole) == _health(apart)


def test_users_of_another_partition_are_counted(stage: Stage) -> None:
    stage.rank.users.partitions = 4
    stage.feed(*(Click(user_id=f"user-{i}", ts=T, item_id="a") for i in range(100)))
    assert 60 < _health(stage)["misrouted", S] < 90


def test_surfaces_are_bounded(stage: Stage) -> None:
    for i in range(300):
        stage.feed(Impression(user_id="u", ts=T, items=["a"], surface=f"surface-{i}"))
    rows = _rows(stage, "ctr", "surface")
    assert len(rows) == 256
    assert rows[""]["impressions"] == 300 - 255


def test_a_broker_time_that_cannot_be_is_counted_all_the_same(stage: Stage) -> None:
    stage.feed(Click(user_id="u", ts=T, item_id="a"), broker_ms=(1 << 63) - 1)
    assert broker_seconds([(1 << 63) - 1])[0] < 1 << 32
    assert set(_rows(stage, "health", "second")) == {4_102_444_800}


def test_counts_of_a_closed_block_do_not_change(stage: Stage) -> None:
    stage.offset = BLOCK - 1
    stage.feed(*[Click(user_id="u", ts=T, item_id="a")] * 3)
    messages = stage.rank.counts.take(0)
    assert [(m.block, m.version, m.cubes["ctr"]["clicks"]) for m in messages] == [
        (0, BLOCK - 1, [1]), (1, BLOCK + 1, [2]),
    ]  # fmt: skip
    stage.feed(Click(user_id="u", ts=T - 10**9, item_id="a"))
    (late,) = stage.rank.counts.take(0)
    assert (late.block, late.cubes["ctr"]["second"]) == (1, [S - 10**6])


def test_counts_are_sent_once_a_second(stage: Stage) -> None:
    def sent(now: float) -> list[Any]:
        return [decode_outcomes(o.value or b"") for o in stage.rank.tick(now) if o.topic == "outcomes"]

    stage.feed(Click(user_id="u", ts=T, item_id="a"))
    assert "ctr" in sent(S)[0].cubes
    stage.feed(Click(user_id="u", ts=T, item_id="a"))
    assert sent(S + 0.9) == []
    (message,) = sent(S + 1.0)
    assert message.cubes["ctr"]["clicks"] == [2]


def test_events_that_expired_are_counted_where_time_had_come_to(stage: Stage) -> None:
    stage.feed(Click(user_id="u", ts=T, item_id="a"))
    stage.rank.gap(0, 12)
    assert _health(stage)["lost", S] == 12


def test_slates_count_when_they_are_acknowledged(stage: Stage) -> None:
    stage.feed(Click(user_id="u", ts=T, item_id="a"), broker_ms=T)
    assert ("slates", S) not in _health(stage)
    stage.rank.settled(S + 0.003)
    (((kind, upto), row),) = _rows(stage, "freshness", "kind", "upto").items()
    assert (kind, round(upto, 2), row) == ("event_to_slate", 3.36, {"count": 1})
    stage.rank.settled(S + 5)
    assert _rows(stage, "freshness", "kind") == {}
