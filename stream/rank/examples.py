"""Examples for train: the lists with their frozen features, and the labels that came since."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from models.batch import F
from stream.ids import Ids
from stream.log import Output, Records
from stream.messages import UNSEEN, Examples, encode_binary
from stream.rank.decode import CLICK, IMPRESSION, PURCHASE, Columns
from stream.rank.feedback import NO_LIST
from stream.rank.given import DRAWN, Given, Seen

Array = NDArray[Any]

MESSAGE_BYTES, NAME_BYTES = 450_000, 300_000
"""Columns and names in one message: with the largest list on top, still below 1 MB."""


def encode_examples(
    schema: int, records: Records, columns: Columns, given: Given, seen: Seen, items: Ids
) -> list[Output]:
    """Everything that train learns from a batch, in messages that a broker takes with its default settings.

    Names that are new are taken from `items`.
    """
    history = seen.history.shape[1]
    items_of = np.diff(columns.start)
    items_of[_made(slice(0, len(items_of)), columns, seen)[1]] += DRAWN
    size = items_of * (4 * F + 10) + 14 * history + 96
    last = np.flatnonzero(np.diff(np.cumsum(size) // MESSAGE_BYTES)) + 1
    borders = [0, *last.tolist(), len(columns.ts)]
    outputs = []
    for a, b in pairwise(borders):
        first = records.offsets[0] if a == 0 else int(columns.offset[a])
        end = records.offsets[-1] if b == borders[-1] else int(columns.offset[b]) - 1
        names = items.take_fresh(NAME_BYTES)
        value = encode_binary(
            _message(schema, records.partition, first, end, slice(a, b), columns, given, seen, names)
        )
        outputs.append(Output("examples", None, value, partition=records.partition))
    return outputs


def _message(
    schema: int,
    partition: int,
    first: int,
    last: int,
    part: slice,
    columns: Columns,
    given: Given,
    seen: Seen,
    names: dict[int, str],
) -> Examples:
    """The events `part` of a batch."""
    acts = part.start + np.flatnonzero(columns.kind[part] <= PURCHASE)
    at = given.event["row"][acts]
    listed = seen.act["list_offset"][at] != NO_LIST
    labelled, label = acts[listed], at[listed]
    made, of = _made(part, columns, seen)
    shown, drawn = _shown_lists(part, columns, given, seen), _drawn_lists(made, of, columns, given, seen)
    lists = {name: np.concatenate([shown[name], drawn[name]]) for name in shown}
    # what came next is the first item of its list; the order of the list is learned from it, as from a click
    first_item, clicked = np.zeros(len(of), np.uint16), np.zeros(len(of), np.uint8) + CLICK
    return Examples(
        schema=schema,
        partition=partition,
        first=first,
        last=last,
        **{name: _raw(column, column.dtype) for name, column in lists.items()},
        label_list=_raw(np.append(seen.act["list_offset"][label], columns.offset[of]), np.int64),
        label_position=_raw(np.append(seen.act["place"][label], first_item), np.uint16),
        label_task=_raw(np.append(columns.kind[labelled], clicked), np.uint8),
        label_ts=_raw(columns.ts[np.append(labelled, of)], np.int64),
        label_broker_ts=_raw(columns.broker_ts[np.append(labelled, of)], np.int64),
        act_offset=_raw(columns.offset[acts], np.int64),
        act_ts=_raw(columns.ts[acts], np.int64),
        act_item=_raw(columns.item[acts], np.uint64),
        act_category=_raw(seen.act["category"][at], np.uint16),
        act_task=_raw(columns.kind[acts], np.uint8),
        act_listed=_raw(listed, np.uint8),
        act_history=_raw(seen.act_history[at], np.uint64),
        act_age=_raw(seen.act_age[at], np.float32),
        act_context=_raw(seen.act_context[at], np.uint64),
        names=names,
    )


def _made(part: slice, columns: Columns, seen: Seen) -> tuple[slice, Array]:
    """The lists made of the acts among some events, and the indices (int64) of these acts."""
    of = np.searchsorted(columns.offset, seen.next["offset"][: seen.next_count[0]])
    made = slice(*(int(k) for k in np.searchsorted(of, [part.start, part.stop])))
    return made, of[made]


def _shown_lists(part: slice, columns: Columns, given: Given, seen: Seen) -> dict[str, Array]:
    """Columns of the impressions among some events."""
    shows = part.start + np.flatnonzero(columns.kind[part] == IMPRESSION)
    rows, items = given.event["row"][shows], slice(columns.start[part.start], columns.start[part.stop])
    return _events(shows, columns, given) | {
        "list_size": np.diff(columns.start)[shows].astype(np.int32),
        "list_own": columns.own[shows].astype(np.uint8),
        "list_history": seen.history[rows],
        "list_history_category": seen.history_category[rows],
        "list_age": seen.age[rows],
        "list_context": seen.context[rows],
        "item": columns.shown[items],
        "item_category": seen.category[items],
        "features": seen.features[items],
    }


def _drawn_lists(made: slice, of: Array, columns: Columns, given: Given, seen: Seen) -> dict[str, Array]:
    """Columns of the lists `made` of the acts `of`."""
    size, rows = seen.next["size"][made], seen.next["act"][made]
    filled = np.arange(seen.next_item.shape[1]) < size[:, None]
    return _events(of, columns, given) | {
        "list_size": size.astype(np.int32),
        "list_own": np.full(len(of), UNSEEN, np.uint8),
        "list_history": seen.act_history[rows],
        "list_history_category": seen.next_history_category[made],
        "list_age": seen.act_age[rows],
        "list_context": seen.act_context[rows],
        "item": seen.next_item[made][filled],
        "item_category": seen.next_category[made][filled],
        "features": seen.next_features[made][filled],
    }


def _events(index: Array, columns: Columns, given: Given) -> dict[str, Array]:
    """Columns of lists that say from which events they are."""
    return {
        "list_offset": columns.offset[index],
        "list_ts": columns.ts[index],
        "list_broker_ts": columns.broker_ts[index],
        "list_user": columns.user[index],
        "list_arm": given.event["arm"][index],
    }


def _raw(column: Array, dtype: DTypeLike) -> bytes:
    return column.astype(np.dtype(dtype).newbyteorder("<"), copy=False).tobytes()
