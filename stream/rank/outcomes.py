"""What rank counts: who saw and did what (by arm), what happened to each record, how long slates took.

Where a metric is added: a cube in `messages.CUBES`, the counting here (or in `train`), a view in
`schema.sql`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.counts import Counts
from stream.log import Records
from stream.messages import Impression
from stream.rank.arms import BUCKETS
from stream.rank.decode import CART, CLICK, IMPRESSION, PURCHASE, Columns, Dead
from stream.rank.feedback import Given, Seen

Array = NDArray[Any]

MINUTE = 60
BINS_PER_OCTAVE = 4


def health(second: int | Array, counter: str, reason: str = "") -> dict[str, Any]:
    """Dimensions of one of rank's counters."""
    return {"second": second, "role": "rank", "counter": counter, "reason": reason}


def count_records(
    counts: Counts, records: Records, processed: int, dead: list[Dead], repeated: int, misrouted: int
) -> None:
    """Account for every record of a batch: consumed = processed + repeated + dead."""
    second = records.timestamps[0] // 1000
    amounts = {
        "consumed": len(records.offsets),
        "processed": processed,
        "repeated": repeated,
        "misrouted": misrouted,
    }
    for counter, amount in amounts.items():
        if amount:
            counts.add(records.partition, "health", health(second, counter), {"count": amount})
    for reason, amount in Counter(_kind(d.reason) for d in dead).items():
        counts.add(records.partition, "health", health(second, "dead", reason), {"count": amount})


def _kind(reason: str) -> str:
    """A reason without its numbers, so that there are few of them.

    >>> _kind("ts 170 is before 2000-01-01: it is read as milliseconds since the epoch")
    'ts # is before #-#-#: it is read as milliseconds since the epoch'
    """
    words = "".join("#" if c.isdigit() else c for c in reason[:120])
    while "##" in words:
        words = words.replace("##", "#")
    return words


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
    arm = _named(given.arm[shows], arms)
    place = np.concatenate([np.arange(1, n + 1) for n in size])
    item_second, item_arm = np.repeat(second, size), np.repeat(arm, size)
    surface = np.repeat(_named(given.surface[shows], surfaces), size)
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
    names: list[str] = []
    for i in shows:
        event = columns.events[i]
        assert isinstance(event, Impression)
        names += event.items
    counts.add(
        partition,
        "items",
        {"second": item_second // MINUTE * MINUTE, "arm": item_arm, "item_id": names},
        {"impressions": 1},
    )
    counts.add(
        partition,
        "diversity",
        {"second": second, "arm": arm},
        {
            "lists": 1,
            "items": size,
            "pairs": seen.pairs,
            "apart": seen.apart,
            "surprise": seen.surprise,
            "young": seen.young,
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
    at = seen.row[acts]
    kind, second = columns.kind[acts], columns.ts[acts] // 1000
    arm, surface = _named(seen.arm[at], arms), _named(seen.surface[at], surfaces)
    price = np.maximum(columns.price[acts], 0).astype(np.float64)
    sums = {
        "clicks": kind == CLICK,
        "carts": kind == CART,
        "purchases": kind == PURCHASE,
        "revenue": np.where(kind == PURCHASE, price * columns.quantity[acts], 0.0),
    }
    dims = {"second": second, "arm": arm}
    counts.add(partition, "ctr", {**dims, "surface": surface, "position": seen.place[at] + 1}, sums)
    bucket = (columns.user[acts] % np.uint64(BUCKETS)).astype(np.int64)
    counts.add(partition, "experiment", {**dims, "bucket": bucket}, sums)
    names = [columns.events[i].item_id for i in acts]  # type: ignore[union-attr]
    counts.add(partition, "items", {**dims, "second": second // MINUTE * MINUTE, "item_id": names}, sums)
    unlisted = int((seen.place[at] < 0).sum())
    if unlisted:
        second_ = int(columns.broker_ts[0]) // 1000
        counts.add(partition, "health", health(second_, "unlisted"), {"count": unlisted})


def _named(codes: Array, names: list[str]) -> Array:
    return np.array(names, dtype=object)[codes]


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


def latency_bin(ms: Array) -> Array:
    """Upper edge (ms) of the bin of each latency: powers of 2 ** (1 / `BINS_PER_OCTAVE`), at least 1.

    >>> latency_bin(np.array([0.2, 3.0, 4.0])).round(2).tolist()
    [1.0, 3.36, 4.0]
    """
    return 2.0 ** (np.ceil(BINS_PER_OCTAVE * np.log2(np.maximum(ms, 1.0))) / BINS_PER_OCTAVE)
