"""Examples for train: the lists with their frozen features, and the labels that came since."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.log import Output, Records
from stream.messages import Examples, encode_binary
from stream.rank.decode import IMPRESSION, PURCHASE, Columns
from stream.rank.feedback import NO_LIST, Given, Seen

Array = NDArray[Any]


def encode_examples(
    schema: int, records: Records, columns: Columns, given: Given, seen: Seen, names: dict[int, str]
) -> Output:
    """One message with everything that train learns from a batch."""
    shows = np.flatnonzero(columns.kind == IMPRESSION)
    acts = np.flatnonzero(columns.kind <= PURCHASE)
    at = seen.row[acts]
    listed = seen.list_offset[at] != NO_LIST
    labelled, label = acts[listed], at[listed]
    message = Examples(
        schema=schema,
        partition=records.partition,
        first=records.offsets[0],
        last=records.offsets[-1],
        list_offset=_raw(columns.offset[shows], np.int64),
        list_ts=_raw(columns.ts[shows], np.int64),
        list_broker_ts=_raw(columns.broker_ts[shows], np.int64),
        list_user=_raw(columns.user[shows], np.uint64),
        list_arm=_raw(given.arm[shows], np.uint8),
        list_size=_raw(np.diff(columns.start)[shows], np.int32),
        list_own=_raw(columns.own[shows], np.uint8),
        list_history=_raw(seen.history, np.uint64),
        list_history_category=_raw(seen.history_category, np.uint16),
        list_age=_raw(seen.age, np.float32),
        item=_raw(columns.shown, np.uint64),
        item_category=_raw(seen.category, np.uint16),
        features=_raw(seen.features, np.float32),
        label_list=_raw(seen.list_offset[label], np.int64),
        label_position=_raw(seen.place[label], np.uint16),
        label_task=_raw(columns.kind[labelled], np.uint8),
        label_ts=_raw(columns.ts[labelled], np.int64),
        label_broker_ts=_raw(columns.broker_ts[labelled], np.int64),
        act_offset=_raw(columns.offset[acts], np.int64),
        act_ts=_raw(columns.ts[acts], np.int64),
        act_item=_raw(columns.item[acts], np.uint64),
        act_category=_raw(seen.act_category[at], np.uint16),
        act_task=_raw(columns.kind[acts], np.uint8),
        act_listed=_raw(listed, np.uint8),
        act_history=_raw(seen.act_history[at], np.uint64),
        act_age=_raw(seen.act_age[at], np.float32),
        names=names,
    )
    return Output("examples", None, encode_binary(message), partition=records.partition)


def _raw(column: Array, dtype: type) -> bytes:
    return column.astype(np.dtype(dtype).newbyteorder("<"), copy=False).tobytes()
