"""Decoding examples: taken whole, or refused whole with a reason."""

from typing import Any

import numpy as np
import pytest

from models.batch import F, Shape
from stream.errors import Poison
from stream.messages import OURS, UNSEEN, encode_binary
from stream.train.join import Batch, concatenate, decode, merge, select
from tests.stream.train.synthetic import T0, acts, labels, lists, message

SHAPE = Shape(history=4)


def columns() -> dict[str, Any]:
    return {
        **lists(SHAPE, [5, 6], T0, [2, 3]),
        **labels([(5, 1, 0), (3, 0, 2)]),
        **acts(SHAPE, [7, 8], [501, 77]),
    }


def test_columns_come_out_as_they_went_in() -> None:
    value = encode_binary(message(SHAPE, 3, 5, 8, **columns(), names={77: "shoe"}))
    batch, last = decode(value, SHAPE, 3)
    assert last == 8
    assert batch.names == {77: "shoe"}
    shown = batch.shown
    assert shown.lists.start.tolist() == [0, 2, 5]
    assert shown.lists.item.tolist() == [502, 503, 602, 603, 604]
    assert shown.lists.features.shape == (5, F)
    assert (shown.partition.tolist(), shown.offset.tolist(), shown.ts.tolist()) == ([3, 3], [5, 6], [T0, T0])
    assert shown.lists.history[:, 0].tolist() == [5, 6]
    assert batch.labels.offset.tolist() == [5, 3]
    assert batch.labels.task.tolist() == [0, 2]
    assert batch.acts.item.tolist() == [501, 77]


def test_only_lists_of_ours_have_places() -> None:
    batch, _ = decode(encode_binary(message(SHAPE, **columns())), SHAPE, 0)
    assert batch.shown.lists.place.tolist() == [1, 2, 0, 0, 0]


def test_a_list_that_nobody_saw_has_no_places_and_says_so() -> None:
    batch, _ = decode(encode_binary(message(SHAPE, **columns() | {"list_own": [UNSEEN, OURS]})), SHAPE, 0)
    assert batch.shown.lists.place.tolist() == [0, 0, 1, 2, 3]
    assert batch.shown.unseen.tolist() == [True, False]
    both = merge([batch, batch]).shown
    assert both.unseen.tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": 1}, "schema 00000001 is not ours"),
        ({"list_ts": [T0]}, "list_ts: 1 rows, not 2"),
        ({"features": b"123"}, "features: 3 bytes"),
        ({"list_size": [2, 2]}, "item: 5 rows, but lists of 4"),
        ({"list_size": [5, 0]}, "list_size: not within 1 to 1000"),
        ({"list_size": [-1, 6]}, "list_size"),
        ({"list_own": [0, 3]}, "list_own: not within 0 to 2"),
        ({"label_task": [0, 3]}, "label_task: not within 0 to 2"),
        ({"act_task": [7, 0]}, "act_task"),
        ({"features": np.full((5, F), np.nan)}, "features: not all are finite"),
        ({"item": [1, 2, 3, 4, 5]}, "item: ids below 2"),
        ({"act_item": [2, 0]}, "act_item: ids below 2"),
        ({"names": {-1: "x"}}, "names: not all are of 64-bit ids"),
        ({"list_broker_ts": [T0, 10 * T0]}, "list_broker_ts: not within 1970 to 2100"),
        ({"label_ts": [-1, T0]}, "label_ts: not within"),
        ({"features": np.full((5, F), -1e13)}, "features: not all are finite, and within 1e\\+12 of zero"),
        ({"list_age": np.full((2, 4), np.inf)}, "list_age: not all are finite"),
    ],
)
def test_a_broken_message_is_poison_with_a_reason(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(Poison, match=reason):
        decode(encode_binary(message(SHAPE, **{**columns(), **change})), SHAPE, 0)


@pytest.mark.parametrize("value", [None, b"", b"\xc1", b"{}"])
def test_what_is_no_message_is_poison(value: bytes | None) -> None:
    with pytest.raises(Poison):
        decode(value, SHAPE, 0)


def test_a_message_of_another_partition_is_poison() -> None:
    with pytest.raises(Poison, match="examples of partition 1 in partition 0"):
        decode(encode_binary(message(SHAPE, 1)), SHAPE, 0)


def test_what_was_passed_is_dropped_when_it_comes_again() -> None:
    batch, last = decode(encode_binary(message(SHAPE, 0, 5, 8, **columns())), SHAPE, 0, passed=5)
    assert batch.shown.offset.tolist() == [6]
    assert batch.shown.lists.item.tolist() == [602, 603, 604]
    batch, last = decode(encode_binary(message(SHAPE, 0, 5, 8, **columns())), SHAPE, 0, passed=8)
    assert len(batch.shown) == len(batch.acts.item) == 0
    assert last == 8


def test_merging_and_selecting_keep_every_list_whole() -> None:
    one, _ = decode(encode_binary(message(SHAPE, 0, 5, 8, **columns())), SHAPE, 0)
    two, _ = decode(
        encode_binary(message(SHAPE, 1, 9, 9, **lists(SHAPE, [9], T0, [4]), names={71: "x"})), SHAPE, 1
    )
    both = merge([one, two])
    assert both.shown.offset.tolist() == [5, 6, 9]
    assert both.shown.partition.tolist() == [0, 0, 1]
    assert both.names == {71: "x"}
    assert len(both.labels.offset) == len(both.acts.item) == 2
    picked = select(both.shown.lists, np.array([2, 0]))
    assert picked.item.tolist() == [902, 903, 904, 905, 502, 503]
    assert picked.history[:, 0].tolist() == [9, 5]
    again = concatenate([select(picked, np.array([1])), select(picked, np.array([0]))])
    assert again.start.tolist() == [0, 2, 6]
    assert again.features[:, 0].tolist() == [502, 503, 902, 903, 904, 905]


def test_what_came_of_several_partitions_is_merged_in_the_order_of_its_time() -> None:
    def of(partition: int, *ts: int) -> Batch:
        columns = lists(SHAPE, list(ts), [T0 + t for t in ts])
        columns |= {**labels([(t, 0, 0) for t in ts]), "label_broker_ts": [T0 + t for t in ts]}
        return decode(encode_binary(message(SHAPE, partition, **columns)), SHAPE, partition)[0]

    both = merge([of(0, 2, 3, 7), of(1, 1, 3, 8)])
    for part in (both.shown, both.labels):
        named = list(zip(part.partition.tolist(), part.offset.tolist(), strict=True))
        assert named == [(1, 1), (0, 2), (0, 3), (1, 3), (0, 7), (1, 8)]
    assert both.shown.lists.item[::3].tolist() == [102, 202, 302, 302, 702, 802]
