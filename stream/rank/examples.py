"""Examples for train: the lists with their frozen features, and the labels that came since."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.batch import F
from stream.ids import Ids
from stream.log import Output, Records
from stream.messages import Examples, encode_binary
from stream.rank.decode import IMPRESSION, PURCHASE, Columns
from stream.rank.feedback import NO_LIST
from stream.rank.given import Given, Seen

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
    size = np.diff(columns.start) * (4 * F + 10) + 14 * history + 64
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
    kind = columns.kind[part]
    shows, acts = (
        part.start + np.flatnonzero(kind == IMPRESSION),
        part.start + np.flatnonzero(kind <= PURCHASE),
    )
    lists, items = given.event["row"][shows], slice(columns.start[part.start], columns.start[part.stop])
    at = given.event["row"][acts]
    listed = seen.act["list_offset"][at] != NO_LIST
    labelled, label = acts[listed], at[listed]
    return Examples(
        schema=schema,
        partition=partition,
        first=first,
        last=last,
        list_offset=_raw(columns.offset[shows], np.int64),
        list_ts=_raw(columns.ts[shows], np.int64),
        list_broker_ts=_raw(columns.broker_ts[shows], np.int64),
        list_user=_raw(columns.user[shows], np.uint64),
        list_arm=_raw(given.event["arm"][shows], np.uint8),
        list_size=_raw(np.diff(columns.start)[shows], np.int32),
        list_own=_raw(columns.own[shows], np.uint8),
        list_history=_raw(seen.history[lists], np.uint64),
        list_history_category=_raw(seen.history_category[lists], np.uint16),
        list_age=_raw(seen.age[lists], np.float32),
        item=_raw(columns.shown[items], np.uint64),
        item_category=_raw(seen.category[items], np.uint16),
        features=_raw(seen.features[items], np.float32),
        label_list=_raw(seen.act["list_offset"][label], np.int64),
        label_position=_raw(seen.act["place"][label], np.uint16),
        label_task=_raw(columns.kind[labelled], np.uint8),
        label_ts=_raw(columns.ts[labelled], np.int64),
        label_broker_ts=_raw(columns.broker_ts[labelled], np.int64),
        act_offset=_raw(columns.offset[acts], np.int64),
        act_ts=_raw(columns.ts[acts], np.int64),
        act_item=_raw(columns.item[acts], np.uint64),
        act_category=_raw(seen.act["category"][at], np.uint16),
        act_task=_raw(columns.kind[acts], np.uint8),
        act_listed=_raw(listed, np.uint8),
        act_history=_raw(seen.act_history[at], np.uint64),
        act_age=_raw(seen.act_age[at], np.float32),
        names=names,
    )


def _raw(column: Array, dtype: type) -> bytes:
    return column.astype(np.dtype(dtype).newbyteorder("<"), copy=False).tobytes()
