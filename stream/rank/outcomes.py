"""What rank counts: who saw and did what (by arm), what happened to each record, how long slates took.

Where a metric is added: a cube in `messages.CUBES`, the counting here (or in `train`), a view in
`schema.sql`.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.counts import Counts, latency_bin
from stream.grouping import Coded, Column
from stream.log import Records
from stream.messages import LATEST_TS
from stream.rank.arms import BUCKETS
from stream.rank.decode import CART, CLICK, IMPRESSION, PURCHASE, Columns, Dead
from stream.rank.given import Given, Seen

Array = NDArray[Any]

MINUTE = 60

_NUMBER, _QUOTED = re.compile(r"\d+"), re.compile(r"'.*'", re.DOTALL)


def health(second: int | Array, counter: str, reason: str | list[str] = "") -> dict[str, Column]:
    """Dimensions of one of rank's counters."""
    return {"second": second, "role": "rank", "counter": counter, "reason": reason}


def count_records(
    counts: Counts,
    records: Records,
    columns: Columns,
    dead: list[Dead],
    repeated: list[int],
    misrouted: Array,
    capped: Array,
) -> None:
    """Account for every record of a batch, in its own second.

    consumed = processed + repeated + dead + capped

    Parameters
    ----------
    columns
        What is processed.
    capped
        Indices (int [*]) of the records of floods.
    misrouted
        Indices (int [*]) of the events that belong to another partition.
    """
    seconds = broker_seconds(records.timestamps)
    of_counter = {
        "consumed": seconds,
        "processed": seconds[columns.record],
        "repeated": seconds[repeated],
        "capped": seconds[capped],
        "misrouted": seconds[columns.record[misrouted]],
    }
    for counter, second in of_counter.items():
        counts.add(records.partition, "health", health(second, counter), {"count": 1})
    if dead:
        second, reasons = seconds[[d.record for d in dead]], [_kind(d.reason) for d in dead]
        counts.add(records.partition, "health", health(second, "dead", reasons), {"count": 1})


def broker_seconds(timestamps: list[int] | Array) -> Array:
    """Seconds of broker times (ms), within what a column of seconds holds: producers may set any time.

    >>> broker_seconds([-1, 1_700_000_000_999, 1 << 62]).tolist()
    [0, 1700000000, 4102444800]
    """
    seconds: Array = np.clip(np.asarray(timestamps, np.int64), 0, LATEST_TS) // 1000
    return seconds


def _kind(reason: str) -> str:
    """A reason without what it quotes and without its numbers, so that there are few of them.

    >>> _kind("ts 170 is before 2000-01-01: it is read as milliseconds since the epoch")
    'ts # is before #-#-#: it is read as milliseconds since the epoch'
    >>> _kind("Invalid value 'clik' - at `$.type`")
    "Invalid value '...' - at `$.type`"
    """
    return _NUMBER.sub("#", _QUOTED.sub("'...'", reason))[:120]


def count_events(
    counts: Counts,
    partition: int,
    columns: Columns,
    given: Given,
    seen: Seen,
    arms: list[str],
    surfaces: list[str],
) -> None:
    """Count impressions and feedback into every cube that users read."""
    if len(columns.shown):
        _count_impressions(counts, partition, columns, given, seen, arms, surfaces)
    if (columns.kind <= PURCHASE).any():
        _count_feedback(counts, partition, columns, given, seen, arms, surfaces)


def _count_impressions(
    counts: Counts,
    partition: int,
    columns: Columns,
    given: Given,
    seen: Seen,
    arms: list[str],
    surfaces: list[str],
) -> None:
    shows = np.flatnonzero(columns.kind == IMPRESSION)
    size = np.diff(columns.start)[shows]
    second = columns.ts[shows] // 1000
    arm = Coded(given.event["arm"][shows], arms)
    place = np.arange(1, len(columns.shown) + 1) - np.repeat(columns.start[shows], size)
    item_second, item_arm = np.repeat(second, size), Coded(np.repeat(arm.codes, size), arms)
    surface = Coded(np.repeat(given.event["surface"][shows], size), surfaces)
    counts.add(
        partition,
        "ctr",
        {"second": item_second, "arm": item_arm, "surface": surface, "position": place},
        {"impressions": 1},
    )
    bucket = (columns.user[shows] % np.uint64(BUCKETS)).astype(np.int64)
    counts.add(
        partition, "experiment", {"second": second, "arm": arm, "bucket": bucket}, {"impressions": size}
    )
    counts.add(
        partition,
        "items",
        {
            "second": item_second // MINUTE * MINUTE,
            "arm": item_arm,
            "item_id": Coded(columns.shown_number, columns.item_names),
        },
        {"impressions": 1},
    )
    counts.add(
        partition,
        "diversity",
        {"second": second, "arm": arm},
        {
            "lists": 1,
            "items": size,
            "pairs": seen.list["pairs"],
            "apart": seen.list["apart"],
            "surprise": seen.list["surprise"],
            "young": seen.list["young"],
        },
    )


def _count_feedback(
    counts: Counts,
    partition: int,
    columns: Columns,
    given: Given,
    seen: Seen,
    arms: list[str],
    surfaces: list[str],
) -> None:
    acts = np.flatnonzero(columns.kind <= PURCHASE)
    at = given.event["row"][acts]
    kind, second = columns.kind[acts], columns.ts[acts] // 1000
    arm, surface = Coded(seen.act["arm"][at], arms), Coded(seen.act["surface"][at], surfaces)
    paid = np.maximum(columns.price[acts], 0) * columns.quantity[acts]
    sums = {
        "clicks": kind == CLICK,
        "carts": kind == CART,
        "purchases": kind == PURCHASE,
        "revenue": np.where(kind == PURCHASE, paid, 0.0),
    }
    dims: dict[str, Column] = {"second": second, "arm": arm}
    counts.add(partition, "ctr", {**dims, "surface": surface, "position": seen.act["place"][at] + 1}, sums)
    bucket = (columns.user[acts] % np.uint64(BUCKETS)).astype(np.int64)
    counts.add(partition, "experiment", {**dims, "bucket": bucket}, sums)
    item = Coded(columns.item_number[acts], columns.item_names)
    counts.add(partition, "items", {**dims, "second": second // MINUTE * MINUTE, "item_id": item}, sums)
    unlisted = broker_seconds(columns.broker_ts[acts[seen.act["place"][at] < 0]])
    counts.add(partition, "health", health(unlisted, "unlisted"), {"count": 1})


def count_slates(counts: Counts, published: list[tuple[int, float]], now: float) -> None:
    """Count slates that are acknowledged, with the time since their event reached the broker.

    Parameters
    ----------
    published
        Partition and broker time (ms) of the newest event behind each slate.
    now
        Seconds since the epoch.
    """
    second = int(now)
    for partition in sorted({p for p, _ in published}):
        latency = np.array([1000 * now - ms for p, ms in published if p == partition])
        counts.add(
            partition,
            "freshness",
            {"second": second, "kind": "event_to_slate", "upto": latency_bin(latency)},
            {"count": 1},
        )
        counts.add(partition, "health", health(second, "slates"), {"count": len(latency)})
