"""The join under disorder, and when a list is ready, judged and gone."""

from typing import Any

import numpy as np
import pytest

from models.batch import TASKS, Array, Shape
from models.losses import DELAYED
from stream.checkpoint import pack, unpack
from stream.messages import OURS, UNSEEN, encode_binary
from stream.train import buffer as buffer_module
from stream.train.buffer import Buffer, Guess, Joined
from stream.train.join import decode
from stream.train.streamtime import StreamTime
from tests.stream.train.synthetic import T0, labels, lists, message

SHAPE = Shape(history=4)


def guess(n: int, value: float = 0.5) -> Guess:
    return Guess(np.full(n, value, np.float32), np.full((n, len(TASKS)), value, np.float32))


def put(
    buffer: Buffer,
    offset: list[int],
    ts: int | list[int] = T0,
    sizes: list[int] | None = None,
    now: int = 0,
    p: int = 0,
    own: list[int] | None = None,
) -> None:
    columns = lists(SHAPE, offset, ts, sizes)
    columns |= {} if own is None else {"list_own": own}
    batch, _ = decode(encode_binary(message(SHAPE, p, **columns)), SHAPE, p)
    n = len(batch.shown.lists.item)
    buffer.append(batch.shown, guess(n, offset[0] / 100), now)


def label(buffer: Buffer, *rows: tuple[int, int, int], p: int = 0) -> Joined:
    batch, _ = decode(encode_binary(message(SHAPE, p, **labels(list(rows)))), SHAPE, p)
    return buffer.label(batch.labels)


def offsets(buffer: Buffer, numbers: Array) -> list[int]:
    return buffer.column("offset", numbers).tolist()


def test_a_click_makes_its_list_ready_at_once() -> None:
    buffer = Buffer(SHAPE, 10)
    put(buffer, [5, 6])
    assert label(buffer, (6, 2, 0)) == Joined(pytest.approx([1]), pytest.approx([True]))
    numbers = buffer.take(10)
    assert offsets(buffer, numbers) == [6]
    assert buffer.gather(numbers).labels.tolist() == [0, 0, 1]


def taught(buffer: Buffer, *numbers: int) -> list[tuple[list[int], list[int]]]:
    """Positives and negatives of all ready lists, which are these."""
    taken = buffer.take(10)
    assert taken.tolist() == list(numbers)
    lesson, _ = buffer.teach(taken)
    parts = (column.reshape(len(numbers), 3).tolist() for column in lesson)
    return list(zip(*parts, strict=True))


@pytest.mark.parametrize("delayed", DELAYED)
def test_a_list_that_nobody_saw_is_learned_once_and_never_as_a_probability(delayed: str) -> None:
    buffer = Buffer(SHAPE, 10, delayed)
    put(buffer, [5, 6], own=[UNSEEN, OURS])
    label(buffer, (5, 0, 2), (6, 0, 0))
    assert taught(buffer, 0, 1) == [([0, 0, 0], [0, 0, 0])] * 2
    buffer.wait(T0 + 1)
    buffer.mature(T0 + 1)
    assert taught(buffer, 1) == [([1, 0, 0], [6, 7, 7])]
    replayed = buffer.replay(50, np.random.default_rng(0))
    assert set(offsets(buffer, replayed)) == {5, 6}
    assert [column.tolist() for column in buffer.review(np.array([0]))] == [[0, 0, 0]] * 2
    assert buffer.column("unseen", np.array([0, 1])).tolist() == [True, False]


def test_a_late_label_makes_a_list_ready_again() -> None:
    buffer = Buffer(SHAPE, 10)
    put(buffer, [5])
    label(buffer, (5, 0, 0))
    buffer.take(10)
    label(buffer, (5, 0, 2))
    assert buffer.gather(buffer.take(10)).labels.tolist() == [0b101, 0, 0]


def test_two_clicks_make_one_list_ready_once() -> None:
    buffer = Buffer(SHAPE, 10)
    put(buffer, [5])
    assert label(buffer, (5, 0, 0), (5, 2, 0)).new.tolist() == [True, True]
    assert buffer.gather(buffer.take(10)).labels.tolist() == [1, 0, 1]
    assert buffer.take(10).tolist() == []


def test_a_label_that_is_there_changes_nothing() -> None:
    buffer = Buffer(SHAPE, 10)
    put(buffer, [5])
    assert label(buffer, (5, 1, 0), (5, 1, 0)).new.tolist() == [True, False]
    buffer.take(10)
    assert label(buffer, (5, 1, 0)).new.tolist() == [False]
    assert buffer.waiting == 0


@pytest.mark.parametrize("row", [(4, 0, 0), (5, 3, 0), (5, 60_000, 0)])
def test_a_label_without_its_item_finds_nothing(row: tuple[int, int, int]) -> None:
    buffer = Buffer(SHAPE, 10)
    put(buffer, [5])
    joined = label(buffer, row)
    assert (joined.number.tolist(), joined.new.tolist()) == ([-1], [False])
    assert buffer.waiting == 0


def test_partitions_are_kept_apart() -> None:
    buffer = Buffer(SHAPE, 10)
    put(buffer, [5], p=0)
    put(buffer, [5], p=1)
    label(buffer, (5, 0, 0), p=1)
    assert buffer.column("partition", buffer.take(10)).tolist() == [1]


def test_a_list_without_click_is_ready_when_the_wait_is_over() -> None:
    buffer = Buffer(SHAPE, 10)
    put(buffer, [5, 6, 7], [T0, T0 + 1000, T0 + 2000])
    buffer.wait(T0 - 1)
    assert buffer.waiting == 0
    buffer.wait(T0 + 1000)
    assert offsets(buffer, buffer.take(10)) == [5, 6]
    buffer.wait(T0 + 1000)
    assert buffer.waiting == 0


def test_a_list_settles_once_when_its_wait_is_over() -> None:
    buffer = Buffer(SHAPE, 10)
    put(buffer, [5, 6])
    label(buffer, (5, 0, 0))
    assert taught(buffer, 0) == [([0, 0, 0], [0, 0, 0])]
    buffer.wait(T0)
    assert taught(buffer, 0, 1) == [([1, 0, 0], [6, 7, 7]), ([0, 0, 0], [7, 7, 7])]
    label(buffer, (5, 0, 1))
    assert taught(buffer, 0) == [([0, 0, 0], [0, 0, 0])]


def test_lists_that_wait_long_settle_in_the_order_of_their_arrival_with_a_label_or_without() -> None:
    buffer = Buffer(SHAPE, 10)
    put(buffer, [5, 6, 7, 8], [T0, T0, T0, T0 + 1000])
    label(buffer, (8, 0, 0), (6, 0, 0))
    buffer.wait(T0 - 1)
    again = Buffer(SHAPE, 10)
    again.restore(unpack(pack(buffer.state())))
    for each in (buffer, again):
        label(each, (7, 0, 0))
        each.wait(T0)
        assert offsets(each, each.take(10)) == [8, 7, 5, 6]


def test_who_waits_learns_conversions_once_when_the_list_is_mature() -> None:
    buffer = Buffer(SHAPE, 10, "wait")
    put(buffer, [5, 6], [T0, T0 + 1])
    label(buffer, (5, 0, 0))
    buffer.wait(T0 + 1)
    assert taught(buffer, 0, 1) == [([1, 0, 0], [0, 1, 1]), ([0, 0, 0], [1, 1, 1])]
    label(buffer, (5, 0, 2))
    assert taught(buffer, 0) == [([0, 0, 0], [0, 0, 0])]
    assert buffer.mature(T0).tolist() == [0]
    assert taught(buffer, 0) == [([4, 0, 0], [2, 6, 6])]
    label(buffer, (5, 1, 2))
    assert taught(buffer, 0) == [([0, 0, 0], [0, 0, 0])]


@pytest.mark.parametrize("delayed", DELAYED)
def test_carts_and_purchases_are_news_once_however_they_are_taught(delayed: str) -> None:
    def news(*labels: tuple[int, int, int]) -> list[int]:
        label(buffer, *labels)
        bits: list[int] = buffer.teach(buffer.take(10))[1].tolist()
        return bits

    buffer = Buffer(SHAPE, 10, delayed)
    put(buffer, [5])
    assert news((5, 0, 0), (5, 0, 1)) == [0, 0, 0]  # the wait for clicks is not over
    buffer.wait(T0)
    assert news((5, 1, 1)) == [3, 2, 0]
    assert news((5, 2, 0), (5, 0, 2)) == [4, 0, 0]  # a late click is none
    buffer.mature(T0)
    assert news((5, 2, 2)) == [0, 0, 4]


def test_fake_negatives_are_followed_by_their_positives() -> None:
    buffer = Buffer(SHAPE, 10, "fnw")
    put(buffer, [5])
    label(buffer, (5, 0, 0), (5, 0, 1))
    buffer.wait(T0)
    assert taught(buffer, 0) == [([3, 0, 0], [6, 7, 7])]
    label(buffer, (5, 0, 2), (5, 2, 1))
    assert taught(buffer, 0) == [([4, 0, 2], [0, 0, 0])]
    assert buffer.mature(T0).tolist() == [0]
    assert buffer.waiting == 0
    again = Buffer(SHAPE, 10, "fnw")
    again.restore(unpack(pack(buffer.state())))
    label(again, (5, 1, 1))
    assert taught(again, 0) == [([0, 2, 0], [0, 0, 0])]


@pytest.mark.parametrize(
    ("delayed", "before", "after"),
    [
        ("naive", ([5, 0, 0], [2, 7, 7]), ([5, 0, 0], [2, 7, 7])),
        ("wait", ([1, 0, 0], [0, 1, 1]), ([5, 0, 0], [2, 7, 7])),
        ("fnw", ([1, 0, 0], [0, 1, 1]), ([5, 0, 0], [6, 7, 7])),
        ("fnc", ([1, 0, 0], [0, 1, 1]), ([5, 0, 0], [6, 7, 7])),
    ],
)
def test_a_replayed_list_teaches_conversions_only_when_it_is_mature(
    delayed: str, before: tuple[list[int], ...], after: tuple[list[int], ...]
) -> None:
    buffer = Buffer(SHAPE, 10, delayed)
    put(buffer, [5])
    label(buffer, (5, 0, 0), (5, 0, 2))
    buffer.wait(T0)
    buffer.teach(buffer.take(10))
    number = np.array([0])
    assert tuple(column.tolist() for column in buffer.review(number)) == before
    buffer.mature(T0)
    buffer.teach(buffer.take(10))
    assert tuple(column.tolist() for column in buffer.review(number)) == after


def test_lists_that_leave_before_they_are_mature_are_counted() -> None:
    buffer = Buffer(SHAPE, 3)
    put(buffer, [1, 2, 3], [T0, T0 + 1, T0 + 2])
    buffer.judge(T0 + 2)
    buffer.mature(T0)
    put(buffer, [4, 5], T0 + 3)
    assert (buffer.missed, buffer.immature) == (0, 1)
    assert offsets(buffer, buffer.mature(T0 + 2)) == [3]


def test_old_records_get_their_time_from_when_they_are_read() -> None:
    buffer = Buffer(SHAPE, 10)
    put(buffer, [5], T0, now=T0 + 60_000)
    buffer.wait(T0 + 59_999)
    assert buffer.waiting == 0
    buffer.wait(T0 + 60_000)
    assert buffer.waiting == 1


def test_a_list_is_judged_once_and_in_time() -> None:
    buffer = Buffer(SHAPE, 10)
    put(buffer, [5, 6], [T0, T0 + 1])
    assert buffer.judge(T0 - 1).tolist() == []
    assert offsets(buffer, buffer.judge(T0)) == [5]
    assert offsets(buffer, buffer.judge(T0 + 1)) == [6]
    assert buffer.judge(T0 + 10**6).tolist() == []


def test_predictions_stay_as_they_were_made() -> None:
    buffer = Buffer(SHAPE, 10)
    put(buffer, [7])
    label(buffer, (7, 0, 0))
    said = buffer.guesses(buffer.take(10))
    assert said.p == pytest.approx(np.full((3, len(TASKS)), 0.07))


def test_levels_stay_with_its_lists_also_where_not_all_fit() -> None:
    buffer = Buffer(SHAPE, 4)
    batch, _ = decode(encode_binary(message(SHAPE, **lists(SHAPE, [1, 2, 3, 4, 5, 6], T0))), SHAPE, 0)
    buffer.append(batch.shown, guess(18), T0, np.array([0.5, 0.25, 0.25]))
    put(buffer, [7])
    known = buffer.column("lately", np.arange(buffer.tail, buffer.head))
    assert known.tolist() == [[0.5, 0.25, 0.25]] * 3 + [[0, 0, 0]]


def test_what_is_set_aside_is_never_ready_again() -> None:
    buffer = Buffer(SHAPE, 10)
    put(buffer, [5, 6])
    label(buffer, (5, 0, 0), (6, 0, 0))
    taken = buffer.take(1)
    buffer.set_aside(taken)
    assert label(buffer, (5, 1, 0)).new.tolist() == [True]
    buffer.wait(T0)
    taken = buffer.take(10)
    assert offsets(buffer, taken) == [6]
    buffer.teach(taken)
    assert offsets(buffer, buffer.replay(20, np.random.default_rng(0))) == [6] * 20


def test_only_settled_lists_are_replayed_and_only_judged_ones_trusted() -> None:
    buffer = Buffer(SHAPE, 10)
    put(buffer, [1, 2, 3, 4], [T0, T0 + 1, T0 + 2, T0 + 3])
    rng = np.random.default_rng(0)
    assert buffer.replay(9, rng).tolist() == []
    label(buffer, (2, 0, 0), (4, 0, 0))
    buffer.teach(buffer.take(10))
    assert buffer.replay(9, rng).tolist() == []
    buffer.wait(T0 + 1)
    buffer.teach(buffer.take(1))
    assert set(offsets(buffer, buffer.replay(50, rng))) == {1}
    buffer.teach(buffer.take(1))
    assert set(offsets(buffer, buffer.replay(50, rng))) == {1, 2}
    buffer.judge(T0)
    assert set(offsets(buffer, buffer.trusted(50, rng, 0))) == {1}
    buffer.judge(T0 + 2)
    assert offsets(buffer, buffer.newest(2, 0)) == [2, 3]
    assert offsets(buffer, buffer.newest(9, 2)) == [3]
    buffer.set_aside(np.array([2]))
    assert offsets(buffer, buffer.newest(2, 0)) == [1, 2]
    assert buffer.trusted(5, rng, 2).tolist() == []


def test_what_is_passed_over_is_not_replayed_but_trusted_and_learned() -> None:
    buffer = Buffer(SHAPE, 10)
    put(buffer, [1, 2, 3, 4, 5], [T0, T0, T0, T0, T0 + 1])
    buffer.wait(T0)
    buffer.judge(T0)
    buffer.teach(buffer.take(3))
    buffer.pass_over(2)
    buffer.pass_over(1)
    buffer.teach(buffer.take(1))
    buffer.wait(T0 + 1)
    buffer.teach(buffer.take(1))
    again, rng = Buffer(SHAPE, 10), np.random.default_rng(0)
    again.restore(unpack(pack(buffer.state())))
    for each in (buffer, again):
        assert set(offsets(each, each.replay(50, rng))) == {3, 4, 5}
        assert set(offsets(each, each.trusted(50, rng, 0))) == {1, 2, 3, 4}


def test_the_oldest_leave_first_and_their_labels_find_nothing() -> None:
    buffer = Buffer(SHAPE, 3)
    put(buffer, [1, 2])
    label(buffer, (1, 0, 0))
    put(buffer, [3, 4])
    assert (len(buffer), buffer.missed) == (3, 1)
    assert label(buffer, (1, 1, 0)).number.tolist() == [-1]
    assert buffer.take(10).tolist() == []
    buffer.wait(T0)
    assert offsets(buffer, buffer.take(10)) == [2, 3, 4]


def test_long_lists_leave_less_room_for_lists() -> None:
    buffer = Buffer(SHAPE, 4)
    buffer.room = 10
    put(buffer, [1, 2], sizes=[4, 4])
    put(buffer, [3], sizes=[5])
    assert len(buffer) == 2
    assert buffer.gather(np.array([1, 2])).item.tolist() == [*range(202, 206), *range(302, 307)]


def test_more_lists_than_fit_leave_the_newest() -> None:
    buffer = Buffer(SHAPE, 4)
    put(buffer, list(range(1, 12)))
    buffer.wait(T0)
    assert offsets(buffer, buffer.take(100)) == [8, 9, 10, 11]


def test_any_history_of_lists_agrees_with_plain_dicts() -> None:
    """Many appends and labels through a small ring, against the obvious code."""
    rng = np.random.default_rng(3)
    buffer = Buffer(SHAPE, 16)
    buffer.room = 70
    sizes: dict[int, int] = {}
    known: dict[int, dict[int, int]] = {}
    offset = 0
    for _ in range(300):
        new = list(range(offset, offset + rng.integers(1, 6)))
        offset += len(new)
        sizes |= {o: int(rng.integers(1, 9)) for o in new}
        known |= {o: {} for o in new}
        put(buffer, new, sizes=[sizes[o] for o in new])
        there = offsets(buffer, np.arange(buffer.tail, buffer.head))
        assert there == list(range(offset - len(there), offset))
        assert sum(sizes[o] for o in there) <= 70
        rows = [
            (int(rng.integers(max(0, offset - 25), offset)), int(rng.integers(9)), int(rng.integers(3)))
            for _ in range(8)
        ]
        joined = label(buffer, *rows)
        for (o, k, t), number, is_new in zip(rows, joined.number, joined.new, strict=True):
            found = o in there and k < sizes[o]
            assert (number >= 0) == found
            before = known[o].get(k, 0)
            assert is_new == (found and not before >> t & 1)
            if found:
                known[o][k] = before | 1 << t
        got = buffer.gather(np.arange(buffer.tail, buffer.head))
        assert got.labels.tolist() == [known[o].get(k, 0) for o in there for k in range(sizes[o])]
        assert got.item.tolist() == [100 * o + k + 2 for o in there for k in range(sizes[o])]


def filled(capacity: int = 8) -> Buffer:
    buffer = Buffer(SHAPE, capacity)
    for o in range(1, 12):
        put(buffer, [o], T0 + o)
    buffer.wait(T0 + 8)
    buffer.take(2)
    label(buffer, (11, 0, 1))
    buffer.judge(T0 + 5)
    return buffer


def observations(buffer: Buffer) -> list[Any]:
    seen = [label(buffer, (o, 1, 0)).number.tolist() for o in range(1, 12)]
    seen += [len(buffer), buffer.missed, offsets(buffer, buffer.judge(T0 + 7))]
    buffer.wait(T0 + 10)
    numbers = buffer.take(100)
    lists_ = buffer.gather(numbers)
    return [
        *seen,
        numbers.tolist(),
        lists_.labels.tolist(),
        lists_.features.tolist(),
        buffer.guesses(numbers).p.tolist(),
    ]


def test_a_restored_buffer_goes_on_as_the_old_one() -> None:
    again = Buffer(SHAPE, 8)
    again.restore(unpack(pack(filled().state())))
    assert observations(again) == observations(filled())


def test_a_checkpoint_leaves_old_judged_lists_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer_module, "KEPT", 2)
    buffer = Buffer(SHAPE, 20)
    put(buffer, list(range(1, 11)))
    buffer.wait(T0)
    buffer.take(100)
    buffer.judge(T0)
    put(buffer, [11], T0 + 1)
    again = Buffer(SHAPE, 20)
    again.restore(unpack(pack(buffer.state())))
    assert offsets(again, np.arange(again.tail, again.head)) == [10, 11]
    assert (again.missed, again.immature) == (0, 9)


def test_a_smaller_buffer_restores_the_newest() -> None:
    again = Buffer(SHAPE, 3)
    again.restore(filled().state())
    assert offsets(again, np.arange(again.tail, again.head)) == [9, 10, 11]
    assert again.missed == filled().missed + 3


def test_stream_time_does_not_go_back_and_moves_on_only_while_idle() -> None:
    time = StreamTime()
    time.idle(100.0)
    assert time.ms == 0  # nothing seen: no time at all
    time.saw(T0)
    time.saw(T0 - 5000)
    assert time.ms == T0
    time.idle(200.0)  # busy up to here
    assert time.ms == T0
    time.idle(201.5)
    assert time.ms == T0 + 1500
    time.saw(T0 + 1000)
    time.idle(300.0)
    assert time.ms == T0 + 1500


def test_short_idle_turns_add_up() -> None:
    time = StreamTime(T0)
    for i in range(1001):
        time.idle(10 + i * 0.0005)
    assert abs(time.ms - T0 - 500) <= 1
