from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.table import Table
from stream.ids import hash_id
from stream.log import Output
from stream.messages import Click, Dismiss, Impression, Item, Search, Slate, slate_decoder
from stream.rank.arms import Trace
from stream.rank.publish import FLOOD, Stock
from stream.rank.slate import USERS
from stream.settings import THREE_ARMS
from tests.stream.rank.stage import SMALL, Stage, T


def _slates(outputs: list[Output]) -> list[Slate]:
    return [slate_decoder.decode(o.value or b"") for o in outputs if o.topic == "recommendations"]


def _items(slate: Slate) -> list[str]:
    return [item.item_id for item in slate.items]


def _click(item: str = "a", user: str = "u", ts: int = T) -> Click:
    return Click(user_id=user, ts=ts, item_id=item)


@pytest.fixture
def shop(stage: Stage) -> Stage:
    stage.items(*(Item(item_id=x, published_at=T - i) for i, x in enumerate("abcdef")))
    return stage


def test_a_slate_says_what_it_is_made_of(shop: Stage) -> None:
    (output,) = [o for o in shop.feed(b"{", _click()) if o.topic == "recommendations"]
    assert output.key == b"u"
    (slate,) = _slates([output])
    assert (slate.user_id, slate.slate_id, slate.arm) == ("u", "lr-0-1", "fresh")
    assert (slate.event.partition, slate.event.offset, slate.event.ts) == (0, 1, T)
    assert (slate.model.version, slate.expires) == ("0-0", T + 86_400_000)
    assert shop.rank.arms.read(slate.trace) == Trace(0, None)
    assert _items(slate) == ["b", "c", "d"]
    assert slate.items[0].source == "new"


def test_feedback_is_always_answered_and_anything_else_when_the_list_has_changed(shop: Stage) -> None:
    search = Search(user_id="u", ts=T, query="x")
    assert len(_slates(shop.feed(search))) == 1
    assert len(_slates(shop.feed(search))) == 0
    assert len(_slates(shop.feed(_click("f")))) == 1
    assert len(_slates(shop.feed(_click("f")))) == 1
    assert len(_slates(shop.feed(Impression(user_id="u", ts=T, items=["a"])))) == 0
    shop.items(Item(item_id="new", published_at=T + 1))
    assert ["new" in _items(s) for s in _slates(shop.feed(search))] == [True]


def test_a_visitor_gets_one_slate_per_batch_as_of_the_newest_event(shop: Stage) -> None:
    found = _slates(shop.feed(_click(), _click(user="v"), Search(user_id="u", ts=T + 5, query="x")))
    assert [(s.user_id, s.event.offset, s.event.ts) for s in found] == [("u", 2, T + 5), ("v", 1, T)]


def test_many_visitors_are_answered_in_several_calls(shop: Stage) -> None:
    users = [f"user-{i}" for i in range(2 * USERS + 3)]
    assert [s.user_id for s in _slates(shop.feed(*(_click(user=u) for u in users)))] == users


def test_in_a_flood_everybody_gets_a_whole_slate_from_fewer_candidates(shop: Stage) -> None:
    shop.items(*(Item(item_id=f"more-{i}", published_at=T - i) for i in range(30)))

    def most_candidates(visitors: int) -> tuple[int, set[int]]:
        found = _slates(shop.feed(*(_click(user=f"user-{i}") for i in range(visitors))))
        assert len(found) == visitors
        return int(np.diff(shop.rank.publisher._buffers.start).max()), {len(s.items) for s in found}

    assert most_candidates(2) == (SMALL.slate.candidates, {3})
    assert most_candidates(FLOOD) == (2 * SMALL.slate.size, {3})


def test_what_is_dismissed_is_gone_from_the_next_slate(shop: Stage) -> None:
    (before,) = _slates(shop.feed(_click("f")))
    (after,) = _slates(shop.feed(Dismiss(user_id="u", ts=T, item_id=_items(before)[0])))
    assert _items(after) == [*_items(before)[1:], "d"]


def test_an_empty_slate_is_published_only_as_an_answer(stage: Stage) -> None:
    assert _slates(stage.feed(Search(user_id="u", ts=T, query="x"))) == []
    assert [s.items for s in _slates(stage.feed(_click()))] == [[]]


def test_a_list_that_becomes_empty_is_told(shop: Stage) -> None:
    shop.feed(_click())
    shop.items(*(Item(item_id=x, available=False) for x in "abcdef"))
    assert [s.items for s in _slates(shop.feed(Search(user_id="u", ts=T, query="x")))] == [[]]


def test_strangers_get_a_slate_when_it_has_changed(shop: Stage) -> None:
    def told(now: float) -> list[Slate]:
        return _slates(shop.rank.tick(now))

    (slate,) = told(T / 1000)
    assert (slate.user_id, slate.arm, _items(slate)) == ("~default", "default", ["a", "b", "c"])
    assert slate.event.partition == -1
    assert told(T / 1000 + 2) == []
    shop.items(Item(item_id="new", published_at=T + 1))
    assert [_items(s)[0] for s in told(T / 1000 + 4)] == ["new"]


def test_only_who_has_partition_0_tells_strangers(shop: Stage) -> None:
    shop.rank.shares[1] = shop.rank.shares.pop(0)
    assert _slates(shop.rank.tick(T / 1000)) == []


def test_quiet_replay_publishes_nothing(shop: Stage) -> None:
    assert shop.feed(_click(), quiet=True) == []
    assert shop.rank.publisher.take_published() == []


def test_odd_names_survive(shop: Stage) -> None:
    names = ["\x00", "a\nb", '"', "日本", "👟"]
    shop.items(*(Item(item_id=x, published_at=T + 5) for x in names))
    for user in names:
        (output,) = [o for o in shop.feed(_click("a", user)) if o.topic == "recommendations"]
        assert output.key == user.encode()
        assert json.loads(output.value or b"")["user_id"] == user
        assert set(_items(_slates([output])[0])) <= {*names, *"abcdef"}


class Named:
    """A model that knows only names: what the catalogue has not heard of is named by it."""

    def __init__(self, name: str) -> None:
        self.names, self.code = [None, name], hash_id(name)
        self.table: Any = self

    def lookup(self, items: Any) -> Any:
        return (items == self.code).astype("int32") * 2 - 1

    def score(self, x: Any, *rest: Any) -> Any:
        return np.arange(len(x), dtype=np.float32), np.zeros((len(x), 3), np.float32)


def test_an_item_that_only_the_model_has_heard_of_has_its_name(shop: Stage) -> None:
    slot = shop.rank.slots["fresh"]
    slot.served = Named("learned")  # type: ignore[assignment]
    table = Table(4)
    table.put(np.array([hash_id("learned")], np.uint64), np.array([1]))
    slot.trending = np.array([hash_id("learned")], np.uint64)
    slot.known = slot.known._replace(
        keys=table.keys, rows=table.rows, stats=np.zeros((4, 8), np.float32), stats_at=np.zeros(4, np.int64),
        first_seen=np.zeros(4, np.int64), near=np.zeros((4, 32), np.uint64),
        near_weight=np.zeros((4, 32), np.float32), near_next=np.zeros((4, 32), np.uint8),
        near_often=np.zeros((4, 32), np.uint8), near_at=np.zeros(4, np.int64),
    )  # fmt: skip
    one, publisher = np.zeros(1, np.int64), shop.rank.publisher
    popular = publisher._rank(
        "popularity", one, one, Stock(publisher._nobody, {"fresh": slot}, shop.rank.catalogue, 16), 16
    )
    assert publisher._names(popular[0].item, slot, shop.rank.catalogue)[0] == "learned"


def test_each_arm_has_its_own_model_and_the_frozen_one_waits_for_its_first(tmp_path: Path) -> None:
    stage = Stage(tmp_path, msgspec.structs.replace(SMALL, arms=THREE_ARMS))
    stage.items(*(Item(item_id=x) for x in "abcd"))
    found = _slates(stage.feed(*(_click(user=f"user-{i}") for i in range(60))))
    assert {s.arm for s in found} == {"fresh", "frozen", "popularity"}
    stage.rank.slots["frozen"].epoch = 7
    stage.rank.slots["frozen"].served = Named("x")  # type: ignore[assignment]
    again = _slates(stage.feed(*(_click(user=f"user-{i}", ts=T + 1) for i in range(60))))
    assert {(s.arm, s.model.version) for s in again} == {
        ("fresh", "0-0"), ("frozen", "7-0"), ("popularity", "0-0"),
    }  # fmt: skip
