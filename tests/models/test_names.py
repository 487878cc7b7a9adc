from __future__ import annotations

from models.names import Names


def test_oldest_waiting_name_is_forgotten_first() -> None:
    names = Names(waiting=2)
    names.hear({1: "a", 2: "b"}, {})
    names.hear({1: "a", 3: "c"}, {})  # 1 is news again
    assert names.waiting == {1: "a", 3: "c"}


def test_name_of_a_row_is_heard_once() -> None:
    names = Names(waiting=2)
    assert names.hear({1: "a"}, {1: 5}) == [5]
    assert names.hear({1: "a"}, {1: 5}) == []


def test_name_waits_while_its_item_has_no_row() -> None:
    names = Names(waiting=2)
    names.hear({1: "a"}, {1: 5})
    names.take_back([5], [1])
    assert names.of_row == {}
    names.give([1], [7])
    assert names.of_row == {7: "a"}


def test_nameless_items_may_have_rows() -> None:
    names = Names(waiting=2)
    names.give([9], [3])
    names.take_back([3], [9])
    assert names.waiting == {}
