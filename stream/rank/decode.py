"""Events as they come, into columns; what cannot be one becomes a dead letter with its reason."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.batch import CONTEXTS
from stream.errors import Poison
from stream.ids import Names, Users, hash_id
from stream.log import Records
from stream.messages import (
    EARLIEST_TS,
    LATEST_TS,
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

    record: int
    reason: str


class Columns(NamedTuple):
    """n valid events, m items shown in all their impressions together.

    Attributes
    ----------
    events : list[AnyEvent] [n]
        The decoded events, for what only a few need (names, traces).
    record : int64 [n]
        Index of each in its batch.
    offset, ts, broker_ts : int64 [n]
        `ts` is event time, both times in ms.
    kind : uint8 [n]
    user : uint64 [n]
    home : int64 [n]
        Partition that the user's events belong to.
    item : uint64 [n]
        Item of a feedback, else 0.
    item_number : int64 [n]
        Its number in `item_names`.
    price : float64 [n]
        -1 where not given.
    quantity : int64 [n]
    slate : uint64 [n]
        Hash of the slate id, 0 without.
    own : uint8 [n]
        1 where the slate is one of ours.
    context : uint64 [n, X]
        0 where the event says less.
    start : int64 [n + 1]
        Items of event i in `shown` and `shown_price`: ``start[i]:start[i + 1]``.
    shown : uint64 [m]
    shown_price : float32 [m]
        -1 where not given.
    shown_number : int64 [m]
        Numbers in `item_names`.
    item_names : list[str]
        Names of items, also of others.
    """

    events: list[AnyEvent]
    record: Array
    offset: Array
    ts: Array
    broker_ts: Array
    kind: Array
    user: Array
    home: Array
    item: Array
    item_number: Array
    price: Array
    quantity: Array
    slate: Array
    own: Array
    context: Array
    start: Array
    shown: Array
    shown_price: Array
    shown_number: Array
    item_names: list[str]


BY_EVENT = (
    "record", "offset", "ts", "broker_ts", "kind", "user", "home", "item", "item_number", "price", "quantity",
    "slate", "own", "context",
)  # fmt: skip
"""Columns [n]."""


class Decoded(NamedTuple):
    """A batch, sorted out: every record is a valid event, dead, or repeated (its index in the batch)."""

    columns: Columns
    dead: list[Dead]
    repeated: list[int]


def decode(records: Records, users: Users, items: Names, recent: Recent, max_ahead_ms: int) -> Decoded:
    """Decode a batch.

    Parameters
    ----------
    records
        Values are JSON events.
    users, items
        Memories of the names.
    recent
        Memory of event ids.
    max_ahead_ms
        How far event time may be ahead of the broker's.
    """
    events: list[AnyEvent] = []
    index: list[int] = []
    dead: list[Dead] = []
    repeated: list[int] = []
    for i, (value, broker_ms) in enumerate(zip(records.values, records.timestamps, strict=True)):
        try:
            event = decode_event(value)
            if not _is_plain(event, broker_ms + max_ahead_ms):
                event = _check(event, broker_ms, max_ahead_ms)
        except Poison as error:
            dead.append(Dead(i, str(error)))
            continue
        if event.event_id is not None and recent.seen(event.event_id, epoch_ms(event.ts)):
            repeated.append(i)
            continue
        events.append(event)
        index.append(i)
    return Decoded(_columns(records, events, np.array(index, np.int64), users, items), dead, repeated)


def pick(columns: Columns, index: Array) -> Columns:
    """The events `index` (int64, ascending) with what they show."""
    size = np.diff(columns.start)
    kept = np.zeros(len(size), bool)
    kept[index] = True
    shown = np.repeat(kept, size)
    by_event = {name: getattr(columns, name)[index] for name in BY_EVENT}
    return Columns(
        events=[columns.events[i] for i in index.tolist()],
        **by_event,
        start=np.concatenate([[0], np.cumsum(size[index])]).astype(np.int64),
        shown=columns.shown[shown],
        shown_price=columns.shown_price[shown],
        shown_number=columns.shown_number[shown],
        item_names=columns.item_names,
    )


def _is_plain(event: AnyEvent, latest: int) -> bool:
    """Whether there is nothing to check: nearly all are, so this is quick."""
    ts = event.ts
    return (
        ts.__class__ is int
        and EARLIEST_TS <= ts <= latest  # type: ignore[operator]
        and ts <= LATEST_TS  # type: ignore[operator]
        and (event.__class__ is not Impression or event.prices is None)
    )


def _check(event: AnyEvent, broker_ms: int, max_ahead_ms: int) -> AnyEvent:
    """The event, its time in ms; raises `Poison` where its fields do not agree."""
    ts = event.ts
    if not isinstance(ts, int) or not EARLIEST_TS <= ts <= LATEST_TS:
        ts = epoch_ms(ts)
        event = msgspec.structs.replace(event, ts=ts)
    if ts > broker_ms + max_ahead_ms:
        raise Poison(f"ts {ts} is {(ts - broker_ms) / 1000:.0f} s ahead of the broker's time")
    if isinstance(event, Impression) and event.prices is not None and len(event.prices) != len(event.items):
        raise Poison(f"prices has {len(event.prices)} entries for {len(event.items)} items")
    return event


def _columns(records: Records, events: list[AnyEvent], index: Array, users: Users, items: Names) -> Columns:
    n = len(events)
    kind = np.array([KINDS[e.__class__] for e in events], np.uint8)
    acts, shows = np.flatnonzero(kind < IMPRESSION), np.flatnonzero(kind == IMPRESSION)
    feedback: list[Feedback] = [events[i] for i in acts.tolist()]  # type: ignore[misc]
    lists: list[Impression] = [events[i] for i in shows.tolist()]  # type: ignore[misc]
    user = users.look([e.user_id for e in events])
    numbers = items.look([e.item_id for e in feedback] + [name for e in lists for name in e.items])
    touched, shown = numbers[: len(feedback)], numbers[len(feedback) :]
    item, item_number = np.zeros(n, np.uint64), np.zeros(n, np.int64)
    item[acts], item_number[acts] = items.hashes(touched), touched
    price, quantity = np.full(n, -1.0), np.ones(n, np.int64)
    price[acts] = [-1.0 if e.price is None else e.price for e in feedback]
    quantity[acts] = [e.quantity for e in feedback]
    size = np.zeros(n, np.int64)
    size[shows] = [len(e.items) for e in lists]
    slate, own = np.zeros(n, np.uint64), np.zeros(n, np.uint8)
    for rows, named in ((acts, feedback), (shows, lists)):
        slate[rows] = [0 if e.slate_id is None else hash_id(e.slate_id) for e in named]
        own[rows] = [e.slate_id is not None and e.slate_id.startswith(OWN_SLATE) for e in named]
    prices: list[list[float]] = [[-1.0] * len(e.items) if e.prices is None else e.prices for e in lists]
    return Columns(
        events=events,
        record=index,
        offset=np.array(records.offsets, np.int64)[index],
        ts=np.array([e.ts for e in events], np.int64),
        # a producer's clock may set these, and train refuses what no clock can say
        broker_ts=np.array(records.timestamps, np.int64)[index].clip(0, LATEST_TS),
        kind=kind,
        user=users.hashes(user),
        home=users.homes(user),
        item=item,
        item_number=item_number,
        price=price,
        quantity=quantity,
        slate=slate,
        own=own,
        context=_contexts(events),
        start=np.concatenate([[0], np.cumsum(size)]).astype(np.int64),
        shown=items.hashes(shown),
        shown_price=np.array([x for each in prices for x in each], np.float32),
        shown_number=shown,
        item_names=items.names,
    )


def _contexts(events: list[AnyEvent]) -> Array:
    """What each event says of its visitor's context (uint64 [n, X]), see `context_ids`."""
    context = np.zeros((len(events), CONTEXTS), np.uint64)
    for i, event in enumerate(events):
        if event.context:
            context[i] = context_ids(event.context)
    return context


def context_ids(said: dict[str, str]) -> Array:
    """Hashes (uint64 [X]) of the first things said of a context, 0 where there are fewer.

    >>> context_ids({"country": "de"}).tolist() == [hash_id("country=de"), 0, 0, 0]
    True
    """
    ids = [hash_id(f"{key}={value}") for key, value in [*said.items()][:CONTEXTS]]
    return np.array(ids + [0] * (CONTEXTS - len(ids)), np.uint64)
