from __future__ import annotations

import numpy as np
import pytest

from models.batch import Array
from stream.checkpoint import pack, unpack
from stream.rank.visitors import BY_ROW, EVICTED_SHARE, RING, Visitors

LIMIT = 1024


def _users(*numbers: int) -> Array:
    return np.array(numbers, np.uint64) + np.uint64(100)


def _visit(visitors: Visitors, users: Array, ts: int) -> Array:
    """As rank does: rows, then an event for each of them."""
    rows = visitors.rows(users)
    visitors.memory.visitor["last_ts"][rows] = ts
    return rows


def _assert_same(one: Visitors, other: Visitors) -> None:
    users = np.sort(one.memory.visitor["user"][one.memory.visitor["user"] > 0])
    assert np.sort(other.memory.visitor["user"][other.memory.visitor["user"] > 0]).tolist() == users.tolist()
    assert len(one) == len(other) == len(users)
    for name in BY_ROW:
        a, b = (getattr(v.memory, name)[v.table.lookup(users)] for v in (one, other))
        for field in a.dtype.names:  # records with arrays in them do not compare
            assert a[field].tolist() == b[field].tolist()
    assert (one.memory.head[0], one.evicted) == (other.memory.head[0], other.evicted)
    assert one.memory.ring.tolist() == other.memory.ring.tolist()


def _loaded(*states: dict[str, object], limit: int = LIMIT, lists: int = 2) -> Visitors:
    visitors = Visitors(limit, 3, lists)
    for state in states:
        visitors.load(unpack(pack(state)))
    return visitors


@pytest.fixture
def visitors() -> Visitors:
    return Visitors(LIMIT, 3, 2)


def test_a_visitor_keeps_the_row(visitors: Visitors) -> None:
    first = visitors.rows(_users(1, 2, 1))
    assert first[0] == first[2] != first[1]
    assert visitors.rows(_users(2, 3))[0] == first[1]
    assert len(visitors) == 3


def test_no_visitors_at_all(visitors: Visitors) -> None:
    assert visitors.rows(_users()).tolist() == []


def test_memory_grows_up_to_the_limit_and_keeps_what_it_held() -> None:
    visitors = Visitors(4000, 3, 2)
    _visit(visitors, _users(1), ts=7)
    visitors.memory.ring[1], visitors.memory.head[0] = 9, 2
    _visit(visitors, _users(*range(2, 4001)), ts=8)
    assert len(visitors.memory.visitor) == len(visitors) == 4000
    assert visitors.memory.visitor["last_ts"][visitors.rows(_users(1))] == 7
    assert (visitors.memory.ring[1], visitors.memory.head[0]) == (9, 2)
    assert visitors.evicted == 0


def test_when_full_the_least_recently_seen_leave(visitors: Visitors) -> None:
    _visit(visitors, _users(*range(512)), ts=5)
    _visit(visitors, _users(*range(512, LIMIT)), ts=9)
    _visit(visitors, _users(2000), ts=10)
    gone = LIMIT // EVICTED_SHARE
    assert (visitors.evicted, len(visitors)) == (gone, LIMIT + 1 - gone)
    left = visitors.table.lookup(_users(*range(LIMIT)))
    assert (left[512:] >= 0).all()
    assert (left[:512] < 0).sum() == gone


def test_who_is_in_the_batch_does_not_leave_for_the_others_in_it(visitors: Visitors) -> None:
    _visit(visitors, _users(*range(LIMIT)), ts=5)
    rows = _visit(visitors, _users(*range(LIMIT - 1), 2000), ts=6)
    assert len(set(rows.tolist())) == LIMIT
    assert visitors.memory.visitor["user"][rows].tolist() == _users(*range(LIMIT - 1), 2000).tolist()


def test_a_row_that_was_taken_over_knows_nothing_of_who_had_it(visitors: Visitors) -> None:
    rows = _visit(visitors, _users(*range(LIMIT)), ts=5)
    visitors.memory.history["item"][rows] = 3
    visitors.memory.lists["start"][rows] = 3
    (row,) = visitors.rows(_users(2000))
    assert not visitors.memory.history[row]["item"].any()
    assert not visitors.memory.lists[row]["start"].any()
    assert visitors.memory.visitor[row]["last_ts"] == 0


def test_a_whole_state_restores_everything(visitors: Visitors) -> None:
    rows = _visit(visitors, _users(1, 2, 3), ts=5)
    visitors.memory.history["price"][rows[1]] = 2.5
    visitors.memory.head[0] = RING + 5
    visitors.memory.ring[:] = np.arange(RING)
    _assert_same(visitors, _loaded(visitors.state(only_touched=False)))


def test_an_increment_holds_only_what_was_touched_since_the_whole_one(visitors: Visitors) -> None:
    _visit(visitors, _users(1, 2, 3), ts=5)
    whole = visitors.state(only_touched=False)
    visitors.forget_touched()
    _visit(visitors, _users(2, 4), ts=6)
    increment = visitors.state(only_touched=True)
    assert len(increment["rows"]) == 2
    _assert_same(visitors, _loaded(whole, increment))


def test_an_increment_tells_who_has_left_and_who_has_come_back(visitors: Visitors) -> None:
    _visit(visitors, _users(*range(LIMIT)), ts=5)
    whole = visitors.state(only_touched=False)
    visitors.forget_touched()
    _visit(visitors, _users(2000), ts=7)
    gone = np.flatnonzero(visitors.table.lookup(_users(*range(LIMIT))) < 0)
    _visit(visitors, _users(gone[0], 2001), ts=8)
    restored = _loaded(whole, visitors.state(only_touched=True))
    _assert_same(visitors, restored)
    # and both go on alike
    for one in (visitors, restored):
        _visit(one, _users(*range(3000, 3100)), ts=9)
    _assert_same(visitors, restored)


def test_a_state_of_more_visitors_than_the_limit_is_kept_until_new_ones_come() -> None:
    big = Visitors(4096, 3, 2)
    _visit(big, _users(*range(4096)), ts=5)
    small = _loaded(big.state(only_touched=False), limit=1024)
    assert len(small) == 4096
    _visit(small, _users(5000), ts=6)
    assert small.evicted == 4096 // EVICTED_SHARE


@pytest.mark.parametrize(("lists", "offsets"), [(1, [8]), (4, [8, 7, 0, 0])])
def test_a_state_of_more_or_fewer_lists_fits(visitors: Visitors, lists: int, offsets: list[int]) -> None:
    (row,) = _visit(visitors, _users(1), ts=5)
    visitors.memory.lists["offset"][row] = [8, 7]
    restored = _loaded(visitors.state(only_touched=False), lists=lists)
    (row,) = restored.rows(_users(1))
    assert restored.memory.lists["offset"][row].tolist() == offsets
