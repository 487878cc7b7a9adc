"""Lists made of acts: when there is one, what is in it, and what train reads."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.batch import FEATURE
from stream.ids import hash_id
from stream.messages import AnyEvent, Cart, Click, Dismiss, Impression, Item, Purchase
from stream.rank.given import DRAWN
from stream.rank.next_item import _draw, _within
from stream.rank.visitors import Visitors
from stream.settings import Settings
from stream.train.join import Batch, decode
from tests.stream.rank.stage import SMALL, Stage, T

NAMES = [f"item-{k}" for k in range(8)]


@pytest.fixture
def shop(stage: Stage) -> Stage:
    return _stocked(stage)


def _stocked(stage: Stage) -> Stage:
    """Offers everything as new; the visitor has touched the first item."""
    stage.items(*(Item(item_id=name, category=f"c{k % 3}") for k, name in enumerate(NAMES)))
    _taught(stage, _click(NAMES[0], -5000))
    return stage


def _click(item: str, after: int = 0, user: str = "u") -> Click:
    return Click(user_id=user, ts=T + after, item_id=item)


def _taught(stage: Stage, *events: AnyEvent) -> Batch:
    """What train reads of these events."""
    (output,) = [o for o in stage.feed(*events) if o.topic == "examples"]
    return decode(output.value, stage.rank.shape, 0)[0]


def test_an_act_among_the_candidates_is_the_first_of_a_list_that_nobody_saw(shop: Stage) -> None:
    offset = shop.offset
    batch = _taught(shop, _click(NAMES[3]))
    shown, lists = batch.shown, batch.shown.lists
    assert (shown.offset.tolist(), shown.ts.tolist(), shown.unseen.tolist()) == ([offset], [T], [True])
    assert lists.item[0] == hash_id(NAMES[3])
    assert set(lists.item.tolist()) == {hash_id(name) for name in NAMES}
    assert len(lists.item) == len(NAMES)
    assert lists.place.tolist() == [0] * len(NAMES)
    labels = batch.labels
    assert (labels.offset.tolist(), labels.position.tolist(), labels.task.tolist()) == ([offset], [0], [0])
    assert lists.history[0].tolist() == batch.acts.history[0].tolist() == [hash_id(NAMES[0]), 0, 0, 0]
    assert lists.history_category[0, 0] == lists.category[lists.item == hash_id(NAMES[0])][0]
    assert lists.age[0].tolist() == [5, -1, -1, -1]
    assert batch.acts.listed.tolist() == [0]


def test_features_are_of_just_before_the_act(shop: Stage) -> None:
    lists = _taught(shop, _click(NAMES[3])).shown.lists
    own = lists.item == hash_id(NAMES[0])
    assert lists.features[:, FEATURE["own_events"]].tolist() == own.astype(int).tolist()
    assert lists.features[:, FEATURE["history_size"]].tolist() == [1] * len(NAMES)
    assert lists.features[0, FEATURE["idle"]] == pytest.approx(np.log1p(5))


@pytest.mark.parametrize("act", [Cart, Purchase])
def test_whatever_is_done_to_the_next_item_it_came_next(shop: Stage, act: type[Cart | Purchase]) -> None:
    batch = _taught(shop, act(user_id="u", ts=T, item_id=NAMES[3]))
    assert batch.shown.unseen.tolist() == [True]
    assert batch.labels.task.tolist() == [0]


@pytest.mark.parametrize(
    "event",
    [
        _click("unheard of"),
        _click(NAMES[0]),
        _click(NAMES[3], user="stranger"),
        Dismiss(user_id="u", ts=T, item_id=NAMES[3]),
    ],
    ids=["not a candidate", "touched before", "no history", "not an act"],
)
def test_no_list_is_made_of(shop: Stage, event: AnyEvent) -> None:
    batch = _taught(shop, event)
    assert len(batch.shown) == len(batch.labels.offset) == 0


def test_a_visitor_who_was_shown_a_list_teaches_by_lists(shop: Stage) -> None:
    show = Impression(user_id="u", ts=T, items=[NAMES[5], NAMES[6]])
    batch = _taught(shop, show, _click(NAMES[6], 1000), _click(NAMES[3], 2000))
    assert batch.shown.unseen.tolist() == [False]
    assert batch.acts.listed.tolist() == [1, 0]


def test_a_second_of_event_time_has_so_many_lists(tmp_path: Path) -> None:
    features = msgspec.structs.replace(SMALL.features, next_per_second=2)
    stage = _stocked(Stage(tmp_path, _with(features=features)))
    late, next_second = _click(NAMES[4], -3000), _click(NAMES[5], 1000)
    batch = _taught(stage, _click(NAMES[1]), _click(NAMES[2]), _click(NAMES[3]), late, next_second)
    assert batch.shown.offset.tolist() == [1, 2, 5]


def _with(**sections: object) -> Settings:
    return msgspec.structs.replace(SMALL, **sections)


def test_lists_and_labels_follow_those_of_impressions(shop: Stage) -> None:
    show = Impression(user_id="v", ts=T, items=[NAMES[5], NAMES[6]])
    batch = _taught(shop, _click(NAMES[3]), show, _click(NAMES[6], 9, user="v"), _click(NAMES[4], 99))
    assert batch.shown.offset.tolist() == [2, 1, 4]
    assert batch.shown.unseen.tolist() == [False, True, True]
    assert batch.labels.offset.tolist() == [2, 1, 4]
    assert batch.labels.position.tolist() == [1, 0, 0]
    assert batch.shown.lists.item[[0, 2, 10]].tolist() == [hash_id(NAMES[k]) for k in (5, 3, 4)]


def test_the_sample_is_uniform_and_the_offset_decides_it() -> None:
    size, tries = 4 * DRAWN, 2000
    items = np.arange(1, size + 1, dtype=np.uint64)
    drawn = np.zeros(size + 1)
    for offset in range(tries):
        mine, again = items.copy(), items.copy()
        assert _draw(mine, np.uint64(7), offset) == _draw(again, np.uint64(7), offset) == DRAWN
        assert mine.tolist() == again.tolist()
        assert mine[0] == 7
        assert len(set(mine[:DRAWN].tolist())) == DRAWN
        drawn[mine[1:DRAWN].astype(np.int64)] += 1
    others = np.delete(drawn[1:], 6)
    expected = tries * (DRAWN - 1) / (size - 1)
    assert abs(others - expected).max() < 5 * np.sqrt(expected)
    assert drawn[7] == 0


def test_a_short_list_of_candidates_is_taken_whole() -> None:
    items = np.array([5, 6, 7], np.uint64)
    assert _draw(items, np.uint64(7), 1) == 3
    assert (items[0], set(items.tolist())) == (7, {5, 6, 7})
    assert _draw(items, np.uint64(8), 1) == 0


def test_the_quota_outlives_growth_and_checkpoints() -> None:
    visitors = Visitors(8192, 3, 2)
    assert _within(visitors.memory.quota, T // 1000, 1)
    visitors.rows(np.arange(2, 3000, dtype=np.uint64))
    assert not _within(visitors.memory.quota, T // 1000, 1)
    other = Visitors(8192, 3, 2)
    other.load(visitors.state(only_touched=False))
    assert not _within(other.memory.quota, T // 1000, 1)
    assert _within(other.memory.quota, T // 1000 + 1, 1)
