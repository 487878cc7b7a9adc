"""Events as they come, into columns; what cannot be one becomes a dead letter with its reason."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import Poison
from stream.ids import Ids, hash_id
from stream.log import Records
from stream.messages import (
    EARLIEST_TS,
    AnyEvent,
    Cart,
    Click,
    Dismiss,
    Feedback,
    Impression,
    Purchase,
    Refund,
    Remove,
    Search,
    decode_event,
    epoch_ms,
)
from stream.rank.recent import Recent

CLICK, CART, PURCHASE, REMOVE, REFUND, DISMISS, IMPRESSION, SEARCH = range(8)
"""Event kinds; the first three are the tasks, in the order of `models.batch.TASKS`."""

KINDS: dict[type, int] = {
    Click: CLICK,
    Cart: CART,
    Purchase: PURCHASE,
    Remove: REMOVE,
    Refund: REFUND,
    Dismiss: DISMISS,
    Impression: IMPRESSION,
    Search: SEARCH,
}

OWN_SLATE = "lr-"
"""Slate ids of ours start so; the order of any other list is somebody else's."""

Array = NDArray[Any]


class Dead(NamedTuple):
    """A record that cannot be processed: its index in the batch, and why."""

    index: int
    reason: str


class Columns(NamedTuple):
    """n valid events, m items shown in all their impressions together.

    Attributes
    ----------
    events : list[AnyEvent] [n]
        The decoded events, for what only a few need (names, traces).
    index : int64 [n]
        Index of each in its batch.
    offset, ts, broker_ts : int64 [n]
        `ts` is event time, both times in ms.
    kind : uint8 [n]
    user : uint64 [n]
    item : uint64 [n]
        Item of a feedback, else 0.
    price : float32 [n]
        -1 where not given.
    quantity : float32 [n]
    slate : uint64 [n]
        Hash of the slate id, 0 without.
    own : uint8 [n]
        1 where the slate is one of ours.
    start : int64 [n + 1]
        Items of event i in `shown` and `shown_price`: ``start[i]:start[i + 1]``.
    shown : uint64 [m]
    shown_price : float32 [m]
        -1 where not given.
    """

    events: list[AnyEvent]
    index: Array
    offset: Array
    ts: Array
    broker_ts: Array
    kind: Array
    user: Array
    item: Array
    price: Array
    quantity: Array
    slate: Array
    own: Array
    start: Array
    shown: Array
    shown_price: Array


class Decoded(NamedTuple):
    """A batch, sorted out: every record is a valid event, dead, or repeated."""

    columns: Columns
    dead: list[Dead]
    repeated: int


def decode(records: Records, users: Ids, items: Ids, recent: Recent, max_ahead_ms: int) -> Decoded:
    """Decode a batch.

    Parameters
    ----------
    records
        Values are JSON events.
    users, items
        Memories of the hashes.
    recent
        Memory of event ids.
    max_ahead_ms
        How far event time may be ahead of the broker's.
    """
    events: list[AnyEvent] = []
    index: list[int] = []
    dead: list[Dead] = []
    repeated = 0
    for i, value in enumerate(records.values):
        try:
            event = decode_event(value)
            if event.ts.__class__ is not int:
                event = msgspec.structs.replace(event, ts=epoch_ms(event.ts))
            _check(event, records.timestamps[i], max_ahead_ms)
        except Poison as error:
            dead.append(Dead(i, str(error)))
            continue
        if event.event_id is not None and recent.seen(event.event_id, event.ts):
            repeated += 1
            continue
        events.append(event)
        index.append(i)
    return Decoded(_columns(records, events, np.array(index, np.int64), users, items), dead, repeated)


def _check(event: AnyEvent, broker_ms: int, max_ahead_ms: int) -> None:
    ts = event.ts
    assert isinstance(ts, int)
    if ts < EARLIEST_TS:
        epoch_ms(ts)
    if ts > broker_ms + max_ahead_ms:
        raise Poison(f"ts {ts} is {(ts - broker_ms) / 1000:.0f} s ahead of the broker's time")
    if event.__class__ is Impression and event.prices is not None and len(event.prices) != len(event.items):
        raise Poison(f"prices has {len(event.prices)} entries for {len(event.items)} items")


def _columns(records: Records, events: list[AnyEvent], index: Array, users: Ids, items: Ids) -> Columns:
    n = len(events)
    kind = np.array([KINDS[e.__class__] for e in events], np.uint8)
    slates = [getattr(e, "slate_id", None) for e in events]
    item, slate = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
    price, quantity = np.full(n, -1, np.float32), np.ones(n, np.float32)
    own, size = np.zeros(n, np.uint8), np.zeros(n, np.int64)
    shown: list[int] = []
    shown_price: list[float] = []
    for i, event in enumerate(events):
        if isinstance(event, Feedback):
            item[i] = items[event.item_id]
            if event.price is not None:
                price[i] = event.price
            quantity[i] = event.quantity
        elif event.__class__ is Impression:
            size[i] = len(event.items)
            shown += [items[x] for x in event.items]
            shown_price += event.prices if event.prices is not None else [-1.0] * len(event.items)
        if slates[i] is not None:
            slate[i] = hash_id(slates[i])
            own[i] = slates[i].startswith(OWN_SLATE)
    return Columns(
        events=events,
        index=index,
        offset=np.array(records.offsets, np.int64)[index],
        ts=np.array([e.ts for e in events], np.int64),
        broker_ts=np.array(records.timestamps, np.int64)[index],
        kind=kind,
        user=np.array([users[e.user_id] for e in events], np.uint64),
        item=item,
        price=price,
        quantity=quantity,
        slate=slate,
        own=own,
        start=np.concatenate([[0], np.cumsum(size)]).astype(np.int64),
        shown=np.array(shown, np.uint64),
        shown_price=np.array(shown_price, np.float32),
    )
