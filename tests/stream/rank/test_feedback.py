"""Which list a feedback belongs to, what it does to the history, when a session begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stream.ids import hash_id
from stream.messages import (
    AnyEvent,
    Cart,
    Click,
    Dismiss,
    Examples,
    Feedback,
    Impression,
    Item,
    Purchase,
    Refund,
    Remove,
    Search,
    decode_examples,
)  # fmt: skip
from stream.rank.arms import Arms
from stream.rank.visitors import (
    A_LIST,
    A_SEARCH,
    ACT_ELSEWHERE,
    ACT_IN_LIST,
    BOUGHT,
    DISMISSED,
    IN_CART,
    RING,
)
from tests.stream.rank.stage import SMALL, Stage, T

A, B, C, D, E = (hash_id(name) for name in "ABCDE")


def _list(items: str, ts: int = T, user: str = "u", **fields: Any) -> Impression:
    return Impression(user_id=user, ts=ts, items=list(items), **fields)


def _act(kind: type[Feedback], item: str, ts: int = T, user: str = "u", **fields: Any) -> Feedback:
    return kind(user_id=user, ts=ts, item_id=item, **fields)


def _examples(stage: Stage, *events: AnyEvent) -> Examples:
    (found,) = [decode_examples(o.value or b"") for o in stage.feed(*events) if o.topic == "examples"]
    return found


def _labels(stage: Stage, *events: AnyEvent) -> list[tuple[int, int, int]]:
    """(offset of the list, place, task) of each label."""
    e = _examples(stage, *events)
    columns = (e.label_list, np.int64), (e.label_position, np.uint16), (e.label_task, np.uint8)
    return list(zip(*(np.frombuffer(raw, kind).tolist() for raw, kind in columns), strict=True))


def test_a_feedback_belongs_to_the_newest_list_that_shows_the_item(stage: Stage) -> None:
    found = _labels(stage, _list("AB"), _list("BC"), _list("CD"), _act(Click, "B"), _act(Cart, "A"))
    assert found == [(1, 0, 0), (0, 0, 1)]


def test_a_slate_that_is_named_wins_over_a_newer_list(stage: Stage) -> None:
    found = _labels(
        stage, _list("AB", slate_id="s"), _list("BA"), _act(Purchase, "B", slate_id="s"),
        _act(Click, "B", slate_id="unheard of"),
    )  # fmt: skip
    assert found == [(0, 1, 2), (1, 0, 0)]


def test_a_slate_that_is_named_but_does_not_show_the_item_gives_way(stage: Stage) -> None:
    found = _labels(stage, _list("AB", slate_id="s"), _list("CD"), _act(Click, "C", slate_id="s"))
    assert found == [(1, 0, 0)]


def test_a_slate_may_be_shown_page_by_page(stage: Stage) -> None:
    pages = [_list("AB", slate_id="s"), _list("CD", slate_id="s"), _list("EA")]
    assert _labels(stage, *pages, _act(Click, "A", slate_id="s")) == [(0, 0, 0)]


def test_only_a_named_slate_is_found_after_the_window(stage: Stage) -> None:
    late = T + int(SMALL.features.list_window_s * 1000) + 1
    events = (_list("AB", slate_id="s"), _act(Click, "A", late), _act(Click, "B", late, slate_id="s"))
    assert _labels(stage, *events, _act(Cart, "A", late - 1)) == [(0, 1, 0), (0, 0, 1)]


def test_feedback_without_a_list_is_an_act_all_the_same(stage: Stage) -> None:
    found = _examples(stage, _list("AB"), _act(Click, "X"), _act(Click, "A", user="other"))
    assert found.label_list == b""
    assert np.frombuffer(found.act_item, np.uint64).tolist() == [hash_id("X"), A]
    assert list(found.act_listed) == [0, 0]


def test_what_takes_back_is_no_label(stage: Stage) -> None:
    kinds = (Remove, Refund, Dismiss)
    found = _examples(stage, _list("AB"), *(_act(kind, "A") for kind in kinds))
    assert (found.label_list, found.act_item) == (b"", b"")


def test_an_item_shown_twice_in_a_list_is_found_at_its_first_place(stage: Stage) -> None:
    assert _labels(stage, _list("ABB"), _act(Click, "B")) == [(0, 1, 0)]


def test_a_list_that_left_the_memory_is_not_found(stage: Stage) -> None:
    older = [_list("AB"), *[_list("CD")] * SMALL.features.lists]
    assert _labels(stage, *older, _act(Click, "A")) == []


def test_a_list_whose_items_were_overwritten_is_not_found(stage: Stage) -> None:
    stage.feed(_list("AB"))
    head = stage.share.visitors.memory.head
    head[0] += RING - 2
    assert _labels(stage, _act(Click, "A")) == [(0, 0, 0)]
    head[0] += 1
    assert _labels(stage, _act(Click, "A")) == []


def test_a_list_that_wraps_around_the_ring_is_found_whole(stage: Stage) -> None:
    stage.share.visitors.memory.head[0] = RING - 1
    assert _labels(stage, _list("ABC"), _act(Click, "C"), _act(Click, "A")) == [(0, 2, 0), (0, 0, 0)]


def test_the_largest_list_is_remembered_whole(stage: Stage) -> None:
    items = [f"item-{i}" for i in range(1000)]
    show = Impression(user_id="u", ts=T, items=items)
    assert _labels(stage, show, _act(Click, "item-999")) == [(0, 999, 0)]


def test_lists_and_feedback_find_each_other_across_batches(stage: Stage) -> None:
    stage.feed(_list("AB"))
    assert _labels(stage, _act(Click, "B")) == [(0, 1, 0)]


def test_a_late_event_counts_but_does_not_turn_time_back(stage: Stage) -> None:
    assert _labels(stage, _list("AB", T), _act(Click, "A", T - 500_000)) == [(0, 0, 0)]
    visitor = stage.share.visitors.memory.visitor[stage.visitor("u")]
    assert visitor["last_ts"] == T
    assert stage.history("u", "ts") == [(T - 500_000,)]
    stage.feed(_act(Click, "A", T - 600_000))
    assert stage.history("u", "ts", "events") == [(T - 500_000, 2)]


def test_the_history_has_each_item_once_newest_first(stage: Stage) -> None:
    stage.feed(*(_act(Click, item, T + i) for i, item in enumerate("ABCA")))
    assert stage.history("u", "item", "ts", "events", "clicks") == [
        (A, T + 3, 2, 2), (C, T + 2, 1, 1), (B, T + 1, 1, 1),
    ]  # fmt: skip


def test_the_oldest_item_leaves_a_full_history_with_all_that_was_known_of_it(stage: Stage) -> None:
    stage.items(Item(item_id="A", category="c", brand="b", price=5))
    stage.feed(_act(Cart, "A"), *(_act(Click, item) for item in "BCDE"))
    assert stage.history("u", "item") == [(E,), (D,), (C,), (B,)]
    stage.feed(_act(Click, "X"))
    assert stage.history("u", "flags", "carts", "category", "brand", "price")[0] == (0, 0, 0, 0, -1)


def test_the_history_knows_what_the_catalogue_told(stage: Stage) -> None:
    stage.items(Item(item_id="A", category="c", brand="b", price=5))
    stage.feed(_act(Click, "A"), _act(Click, "B", price=7))
    entry = stage.rank.catalogue.items[0]
    assert stage.history("u", "category", "brand", "price") == [
        (0, 0, 7), (entry["category"], entry["brand"], 5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kinds", "flags"),
    [
        ([Click], 0),
        ([Cart], IN_CART),
        ([Cart, Remove], 0),
        ([Cart, Purchase], BOUGHT),
        ([Purchase, Cart], BOUGHT | IN_CART),
        ([Purchase, Refund], 0),
        ([Cart, Refund], IN_CART),
        ([Purchase, Remove], BOUGHT),
        ([Dismiss], DISMISSED),
        ([Click, Dismiss, Cart], DISMISSED | IN_CART),
    ],
)
def test_flags_follow_what_was_done(stage: Stage, kinds: list[type[Feedback]], flags: int) -> None:
    stage.feed(*(_act(kind, "A") for kind in kinds))
    assert stage.history("u", "flags") == [(flags,)]


def test_taking_back_what_is_not_there_changes_nothing(stage: Stage) -> None:
    stage.feed(_act(Remove, "A"), _act(Refund, "B"))
    assert stage.history("u", "item") == []


def test_taking_back_does_not_move_an_item_to_the_front(stage: Stage) -> None:
    stage.feed(_act(Cart, "A"), _act(Click, "B"), _act(Remove, "A", T + 5))
    assert stage.history("u", "item", "ts", "events") == [(B, T, 1), (A, T, 1)]


def test_counts_of_one_item_do_not_overflow(stage: Stage) -> None:
    stage.feed(*[_act(kind, "A") for kind in (Click, Cart, Purchase)] * 300)
    assert stage.history("u", "clicks", "carts", "purchases", "events") == [(255, 255, 255, 900)]
    stage.feed(_list("A"), *[_act(Click, "A")] * 300)
    assert stage.history("u", "clicks", "list_clicks") == [(255, 0)]
    own = stage.share.visitors.memory.history[stage.visitor("u")]
    own["events"] = 65_535
    stage.feed(_act(Click, "A"))
    assert stage.history("u", "events") == [(65_535,)]


def _session(stage: Stage) -> tuple[int, ...]:
    visitor = stage.share.visitors.memory.visitor[stage.visitor("u")]
    return tuple(visitor[f].item() for f in ("session_ts", "steps", "session_clicks", "click_place"))


def test_a_session_ends_when_nothing_came_for_the_gap(stage: Stage) -> None:
    gap = int(SMALL.features.session_gap_s * 1000)
    stage.feed(_list("AB"), _act(Click, "B"))
    assert _session(stage) == (T, 2, 1, 2)
    stage.feed(Search(user_id="u", ts=T + gap, query="shoes"))
    assert _session(stage) == (T, 3, 1, 2)
    stage.feed(_list("AB", T + 2 * gap + 1))
    assert _session(stage) == (T + 2 * gap + 1, 1, 0, 0)


@pytest.mark.parametrize(
    ("shown", "named", "in_list"),
    [(None, None, True), ("s", "s", True), ("s", None, False), ("s", "other", False), (None, "other", True)],
)
def test_where_lists_have_names_a_click_that_names_none_is_a_consequence_not_an_answer(
    stage: Stage, shown: str | None, named: str | None, in_list: bool
) -> None:
    assert _labels(stage, _list("AB", slate_id=shown), _act(Click, "B", slate_id=named)) == [(0, 1, 0)]
    visitor = stage.share.visitors.memory.visitor[stage.visitor("u")]
    assert visitor["click_place"] == (2 if in_list else 0)
    assert visitor["last"] == (ACT_IN_LIST if in_list else ACT_ELSEWHERE)
    assert stage.history("u", "clicks", "list_clicks") == [(1, int(in_list))]


def test_the_newest_event_is_remembered_by_what_it_was(stage: Stage) -> None:
    found = []
    for event in (_act(Cart, "X"), Search(user_id="u", ts=T, query="shoes"), _list("AB"), _act(Cart, "A")):
        stage.feed(event)
        found.append(stage.share.visitors.memory.visitor[stage.visitor("u")]["last"])
    assert found == [ACT_ELSEWHERE, A_SEARCH, A_LIST, ACT_IN_LIST]


def test_features_are_frozen_before_the_list_itself_counts(stage: Stage) -> None:
    found = _examples(stage, _act(Click, "A"), _list("AB", T + 1000), _act(Click, "B", T + 2000))
    assert np.frombuffer(found.list_history, np.uint64).tolist() == [A, 0, 0, 0]
    assert np.frombuffer(found.list_age, np.float32).tolist() == [1, -1, -1, -1]
    assert np.frombuffer(found.act_history, np.uint64).reshape(2, 4)[:, 0].tolist() == [0, A]
    assert np.frombuffer(found.act_age, np.float32).reshape(2, 4)[:, 0].tolist() == [-1, 2]


def test_the_arm_of_a_trace_is_that_of_the_list_and_of_its_feedback(stage: Stage) -> None:
    strangers = stage.rank.arms.strangers
    trace = Arms(SMALL).trace(strangers, "1-7")
    stage.feed(_list("AB", trace=trace), _list("CD", trace="default.1-7.forged"))
    assert stage.share.visitors.memory.lists[stage.visitor("u")]["arm"].tolist()[:2] == [0, strangers]
    stage.feed(_act(Click, "A"), _act(Click, "C"))
    ctr = stage.counted("ctr")
    clicks = {a: k for a, k, shown in zip(ctr["arm"], ctr["clicks"], ctr["impressions"], strict=True) if k}
    assert clicks == {"default": 1, "fresh": 1}
