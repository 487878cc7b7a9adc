from __future__ import annotations

from itertools import pairwise

import numpy as np

from models.batch import F
from stream.ids import hash_id
from stream.messages import Click, Examples, Impression, Item, Purchase, decode_examples
from stream.rank.examples import MESSAGE_BYTES, NAME_BYTES
from stream.train.join import decode as read
from tests.stream.rank.stage import SMALL, Stage, T

BROKER_DEFAULT = 1_000_000
"""Bytes of a message that a broker takes unless told otherwise."""


def _examples(stage: Stage, *events: Impression | Click | Purchase) -> list[Examples]:
    outputs = [o for o in stage.feed(*events) if o.topic == "examples"]
    assert all(len(o.value or b"") < BROKER_DEFAULT for o in outputs)
    assert all(o.partition == 0 for o in outputs)
    return [decode_examples(o.value or b"") for o in outputs]


def _show(*items: str, user: str = "u") -> Impression:
    return Impression(user_id=user, ts=T, items=list(items))


def test_train_reads_what_rank_writes(stage: Stage) -> None:
    stage.items(Item(item_id="a", category="x"))
    stage.feed(Click(user_id="u", ts=T - 9000, item_id="b"))
    events = (_show("a", "b"), Click(user_id="u", ts=T + 1000, item_id="b"))
    (output,) = [o for o in stage.feed(*events) if o.topic == "examples"]
    batch, last = read(output.value, stage.rank.shape, 0)
    assert last == 2
    lists = batch.shown.lists
    assert lists.item.tolist() == [hash_id("a"), hash_id("b")]
    assert lists.category.tolist() == [stage.rank.catalogue.items["category"][0], 0]
    assert lists.features.shape == (2, F)
    assert lists.history.tolist() == [[hash_id("b"), 0, 0, 0]]
    assert lists.age.tolist() == [[9, -1, -1, -1]]
    assert (batch.labels.offset.tolist(), batch.labels.position.tolist()) == ([1], [1])
    assert batch.acts.item.tolist() == [hash_id("b")]
    assert batch.acts.listed.tolist() == [1]


def test_a_message_spans_the_records_it_was_made_from(stage: Stage) -> None:
    (found,) = _examples(stage, _show("a"), _show("b"))
    assert (found.first, found.last) == (0, 1)
    outputs = stage.feed(b"{", Click(user_id="u", ts=T, item_id="a"), b"{")
    (found,) = [decode_examples(o.value or b"") for o in outputs if o.topic == "examples"]
    assert (found.first, found.last) == (2, 4)


def test_a_large_batch_is_cut_into_messages_that_follow_each_other(stage: Stage) -> None:
    events = [_show(*(f"item-{k}" for k in range(50)), user=f"user-{i}") for i in range(200)]
    clicks = [Click(user_id=f"user-{i}", ts=T, item_id="item-3") for i in range(200)]
    found = _examples(stage, *events, *clicks)
    assert len(found) > 2
    assert (found[0].first, found[-1].last) == (0, 399)
    assert all(b.first == a.last + 1 for a, b in pairwise(found))
    offsets = np.concatenate([np.frombuffer(e.list_offset, np.int64) for e in found])
    assert offsets.tolist() == list(range(200))
    labels = np.concatenate([np.frombuffer(e.label_list, np.int64) for e in found])
    assert labels.tolist() == list(range(200))
    assert sum(len(e.features) for e in found) == 200 * 50 * F * 4
    assert sum(len(e.act_history) for e in found) == 200 * 8 * SMALL.features.history


def test_the_largest_lists_fit(stage: Stage) -> None:
    name = "x" * 250
    found = _examples(stage, *(_show(*(f"{name}-{i}-{k}"[-256:] for k in range(1000))) for i in range(8)))
    assert sum(len(e.item) for e in found) == 8 * 8 * 1000
    assert MESSAGE_BYTES + NAME_BYTES + 1000 * (4 * F + 10) < BROKER_DEFAULT


def test_a_name_is_told_once_and_none_is_lost(stage: Stage) -> None:
    first = _examples(stage, _show("a", "b"), Click(user_id="u", ts=T, item_id="c"))
    assert [e.names for e in first] == [{hash_id(x): x for x in "abc"}]
    assert [e.names for e in _examples(stage, _show("a", "d"))] == [{hash_id("d"): "d"}]
    long = [f"{i:0200}" for i in range(3000)]
    found = _examples(stage, *(_show(*long[i : i + 100]) for i in range(0, 3000, 100)))
    while stage.rank.items.fresh:
        found += _examples(stage, _show("a"))
    told = [name for e in found for name in e.names.values()]
    assert sorted(told) == sorted(long)


def test_quiet_replay_says_nothing_but_names_are_told_afterwards(stage: Stage) -> None:
    assert stage.feed(_show("a"), quiet=True) == []
    assert [set(e.names.values()) for e in _examples(stage, _show("b"))] == [{"a", "b"}]
