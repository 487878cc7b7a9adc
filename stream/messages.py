"""Every message that crosses a topic: the whole contract, one file to read.

Users write `events` and `items` and read `recommendations` and `alerts` (JSON). The roles
write `examples`, `model` and `outcomes` for each other (MessagePack around raw columns).

========================  ==================  ===========================================
topic                     from -> to          value
========================  ==================  ===========================================
events                    users -> rank       `Event`, JSON; key: user_id
items                     users -> rank       `Item`, JSON, or a tombstone; key: item_id
recommendations           rank -> users       `Slate`, JSON; key: user_id, or ``~default``
examples                  rank -> train       `Examples`, MessagePack; same partition as the events
model                     train -> rank       `ModelUpdate`, MessagePack; 1 partition
outcomes                  all -> monitor      `Outcomes`, MessagePack
alerts                    monitor -> users    `Alert`, JSON; key: rule
dead-letters              any -> CLI          the bytes as they came; headers say why
========================  ==================  ===========================================
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from stream.errors import Poison

STRANGER = "~default"
"""Key of the slate for visitors that liverank has not seen."""

STRANGERS = "default"
"""What counts of that slate have for an arm: nobody was drawn for it, so it is compared with none."""

EARLIEST_TS = 946_684_800_000
"""2000-01-01 in ms: an older `ts` is almost always one given in seconds."""

LATEST_TS = 4_102_444_800_000
"""2100-01-01 in ms: a later `ts` is a mistake, and would not fit where times are kept."""

THEIRS, OURS, UNSEEN = range(3)
"""Whose list an example is: somebody else's order, a slate of ours, made of an act without a list."""

MAX_LIST = 1_000
"""Items in one impression; a longer list is nobody's page."""

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Text = Annotated[str, Meta(max_length=1024)]
Price = Annotated[float, Meta(ge=0, le=1e9)]
Timestamp = int | datetime


class Event(Struct, kw_only=True, tag_field="type", frozen=True, gc=False):
    """What every event has: who and when.

    Parameters
    ----------
    user_id
        The visitor; also the message's key.
    ts
        Milliseconds since the epoch, or ISO 8601 with a time zone.
    event_id
        Makes a re-delivery within 10 minutes of event time harmless.
    context
        What is known of who comes (country, device, ...), in values that many visitors share. The first
        `models.batch.CONTEXTS` count, and replace what was told before.
    """

    user_id: Id
    ts: Timestamp
    event_id: Id | None = None
    context: dict[str, Text] | None = None


class Impression(Event, tag="impression", kw_only=True, frozen=True, gc=False):
    """These items were shown, in display order."""

    items: Annotated[list[Id], Meta(min_length=1, max_length=MAX_LIST)]
    slate_id: Id | None = None
    trace: Text | None = None
    prices: list[Price] | None = None
    surface: Annotated[str, Meta(max_length=64)] = ""


class Feedback(Event, kw_only=True, frozen=True, gc=False):
    """Something done to one item."""

    item_id: Id
    slate_id: Id | None = None
    price: Price | None = None
    quantity: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    session_id: Id | None = None


class Click(Feedback, tag="click", frozen=True, gc=False):
    """The visitor opened the item."""


class Cart(Feedback, tag="cart", frozen=True, gc=False):
    """The visitor put the item into the cart."""


class Purchase(Feedback, tag="purchase", frozen=True, gc=False):
    """The visitor bought the item."""


class Remove(Feedback, tag="remove", frozen=True, gc=False):
    """The visitor took the item out of the cart."""


class Refund(Feedback, tag="refund", frozen=True, gc=False):
    """The visitor gave the item back."""


class Dismiss(Feedback, tag="dismiss", frozen=True, gc=False):
    """The visitor does not want to see the item again."""


class Search(Event, tag="search", kw_only=True, frozen=True, gc=False):
    """Text that tells intent."""

    query: Text


AnyEvent = Impression | Click | Cart | Purchase | Remove | Refund | Dismiss | Search


class Item(Struct, kw_only=True, frozen=True, gc=False):
    """A catalogue entry; `vector` has any dimension the shop likes, fixed per shop."""

    item_id: Id
    category: Text = ""
    brand: Text = ""
    price: Price | None = None
    title: Text = ""
    available: bool = True
    vector: list[float] | None = None
    published_at: Timestamp | None = None


class SlateItem(Struct, frozen=True, gc=False, omit_defaults=True):
    """One recommended item; `score` orders, the probabilities are per impression.

    `explored` is there, and true, where the item was drawn instead of ranked.
    """

    item_id: str
    score: float
    p_click: float
    p_cart: float
    p_purchase: float
    source: str
    explored: bool = False


class ModelVersion(Struct, frozen=True, gc=False):
    """The model that scored a slate: its version and the event time (ms) it had learned up to."""

    version: str
    trained_through: int


class Position(Struct, frozen=True, gc=False):
    """The newest event that a slate reflects (``partition`` -1 for the strangers' slate)."""

    partition: int
    offset: int
    ts: int


class Slate(Struct, frozen=True, kw_only=True, gc=False):
    """What to show to one visitor next; replaces the visitor's earlier slates."""

    user_id: str
    slate_id: str
    ts: int
    arm: str
    surface: str = ""
    items: list[SlateItem]
    model: ModelVersion
    event: Position
    trace: str
    expires: int


class Alert(Struct, frozen=True, kw_only=True, gc=False):
    """Something an operator wants to know before users notice."""

    rule: str
    ts: int
    severity: str
    message: str
    values: dict[str, float] = {}


class Examples(Struct, frozen=True, kw_only=True, array_like=True):
    """What rank saw in one stretch of one events partition; columns are raw little-endian arrays.

    Shapes as in `models.batch`; M labels, K interactions (acts).
    Features are frozen at the impression. A list is named by the offset of its event.

    Attributes
    ----------
    schema : int
        `models.batch.Shape.schema`; a reader with another one refuses.
    partition, first, last : int
        The events these came from: partition and first and last offset.
    list_offset, list_ts, list_broker_ts : int64 [B]
        Offset, event time and broker time (ms).
    list_user : uint64 [B]
    list_arm : uint8 [B]
    list_size : int32 [B]
    list_own : uint8 [B]
        `OURS` when the list was a slate of ours (then the place is bias, else it is prior rank);
        `UNSEEN` when nobody saw it: the item of an act (its event names the list), and candidates that
        were not chosen.
    list_history : uint64 [B, H], newest first, 0 where empty
    list_age : float32 [B, H], seconds before the list, -1 where empty
    list_history_category : uint16 [B, H]
    item : uint64 [N]
    item_category : uint16 [N]
        Category hash mod C; 0 unknown.
    features : float32 [N, F]
    label_list : int64 [M]
        Offset of the list, in the same partition.
    label_position, label_task : uint16, uint8 [M]
        Place in the list from 0; task 0 click, 1 cart, 2 purchase.
    label_ts, label_broker_ts : int64 [M]
    act_offset, act_ts : int64 [K]
        Every click, cart and purchase, with a list or without.
    act_item : uint64 [K]
    act_category : uint16 [K]
    act_task, act_listed : uint8 [K]
        Task as above; 1 when a list showed the item.
    act_history : uint64 [K, H]; act_age : float32 [K, H]
        The user's history just before, as for lists.
    list_context : uint64 [B, X]; act_context : uint64 [K, X]
        What is known of the user's context, 0 where that is less.
    names : dict[int, str]
        Ids that this rank had not named before: hash -> item_id.
    """

    schema: int
    partition: int
    first: int
    last: int
    list_offset: bytes
    list_ts: bytes
    list_broker_ts: bytes
    list_user: bytes
    list_arm: bytes
    list_size: bytes
    list_own: bytes
    list_history: bytes
    list_history_category: bytes
    list_age: bytes
    list_context: bytes
    item: bytes
    item_category: bytes
    features: bytes
    label_list: bytes
    label_position: bytes
    label_task: bytes
    label_ts: bytes
    label_broker_ts: bytes
    act_offset: bytes
    act_ts: bytes
    act_item: bytes
    act_category: bytes
    act_task: bytes
    act_listed: bytes
    act_history: bytes
    act_age: bytes
    act_context: bytes
    names: dict[int, str]


class ModelUpdate(Struct, frozen=True, kw_only=True, array_like=True):
    """One step of the model, or the name of a whole one.

    A delta (`payload` set) applies on top of version (`epoch`, `n` - 1) of its slot. A snapshot
    (`uri` set) is the whole model at (`epoch`, `n`), in the checkpoint store. Slots: ``fresh``, and
    ``frozen`` for the arm that keeps the model of the first minute.
    """

    slot: str
    epoch: int
    n: int
    trained_through: int
    payload: bytes | None = None
    uri: str | None = None
    checksum: int = 0


class Cube(NamedTuple):
    """Columns of one table of counts: what it is counted by, and what is added up.

    Types are ClickHouse's. Every table also has ``source``, ``partition``, ``block``, ``version``.
    """

    dims: dict[str, str]
    sums: dict[str, str]


COUNT, REAL = "UInt64", "Float64"

CUBES: dict[str, Cube] = {
    # position: place in the list from 1; 0 is feedback that no list explains
    "ctr": Cube(
        {"second": "DateTime", "arm": "String", "surface": "String", "position": "UInt16"},
        {"impressions": COUNT, "clicks": COUNT, "carts": COUNT, "purchases": COUNT, "revenue": REAL},
    ),
    # bucket: user hash mod 32, because users, not impressions, are what an arm draws
    "experiment": Cube(
        {"second": "DateTime", "arm": "String", "bucket": "UInt8"},
        {"impressions": COUNT, "clicks": COUNT, "carts": COUNT, "purchases": COUNT, "revenue": REAL},
    ),
    # explored places by who would have chosen what stood there, see `stream.rank.choices`
    "choices": Cube(
        {"second": "DateTime", "arm": "String", "policy": "String", "bucket": "UInt8"},
        {"shown": COUNT, "matched": COUNT, "places": REAL, "weight": REAL, "squares": REAL, "clicks": REAL},
    ),
    # second: truncated to the minute
    "items": Cube(
        {"second": "DateTime", "arm": "String", "item_id": "String"},
        {"impressions": COUNT, "clicks": COUNT, "carts": COUNT, "purchases": COUNT, "revenue": REAL},
    ),
    # pairs: pairs of items within a list, apart: those of different categories; surprise: -log2 of
    # each item's share of all impressions; young: items published or first seen within the last minute
    "diversity": Cube(
        {"second": "DateTime", "arm": "String"},
        {"lists": COUNT, "items": COUNT, "pairs": COUNT, "apart": COUNT, "surprise": REAL, "young": COUNT},
    ),
    # kind: event_to_slate | event_to_learned; upto: upper edge of the latency bin, ms
    "freshness": Cube({"second": "DateTime", "kind": "String", "upto": "Float64"}, {"count": COUNT}),
    # lag: 0 is the newest model; 1m, 10m, frozen are older ones, on a sample of users
    # bin: floor of 8 x log-odds of the prediction, clipped to -80..79; loss: sum of log losses (nats)
    "quality": Cube(
        {"second": "DateTime", "task": "String", "lag": "String", "bin": "Int16"},
        {"count": COUNT, "positives": COUNT, "predicted": REAL, "loss": REAL},
    ),
    # lists with a click: reciprocal rank and NDCG@10 of their clicked items
    "ranking": Cube(
        {"second": "DateTime", "lag": "String"}, {"lists": COUNT, "reciprocal": REAL, "ndcg": REAL}
    ),
    # decision: snapshot | published | rejected
    "models": Cube(
        {"second": "DateTime", "epoch": "UInt32", "n": "UInt32", "decision": "String"},
        {
            "lists": COUNT,
            "bytes": COUNT,
            "rows": COUNT,
            "seconds": REAL,
            "loss_before": REAL,
            "loss_after": REAL,
        },
    ),
    # counter: consumed | processed | repeated | dead | capped | misrouted | unlisted | slates | ...
    "health": Cube(
        {"second": "DateTime", "role": "String", "counter": "String", "reason": "String"}, {"count": COUNT}
    ),
    # gauge: a reading, not a sum: lag, state sizes, memory
    "gauges": Cube({"second": "DateTime", "role": "String", "gauge": "String"}, {"value": REAL}),
    # what only the simulated shop knows: clicks expected from what was shown, and from the best slate
    "truth": Cube(
        {"second": "DateTime", "arm": "String"}, {"impressions": COUNT, "expected": REAL, "best": REAL}
    ),
}


class Outcomes(Struct, frozen=True, kw_only=True, array_like=True):
    """Cumulative counts of one block of inputs, so that sending them again changes nothing.

    A row is named by (source, partition, block, its dims); of two rows with one name the one with
    the higher `version` (the last input offset it includes) stands, and readers add blocks up.

    Attributes
    ----------
    cubes
        cube name -> column name -> values, one list per column of `CUBES`, all of one length;
        ``second`` is in seconds since the epoch.
    """

    source: str
    partition: int
    block: int
    version: int
    cubes: dict[str, dict[str, list[Any]]]


TOPICS = ("events", "items", "recommendations", "examples", "model", "outcomes", "alerts", "dead-letters")
"""Names of the topics, before the prefix."""

_event: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
_item = msgspec.json.Decoder(Item)
_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()
_examples = msgspec.msgpack.Decoder(Examples)
_model = msgspec.msgpack.Decoder(ModelUpdate)
_outcomes = msgspec.msgpack.Decoder(Outcomes)
slate_decoder = msgspec.json.Decoder(Slate)

encode_json = _json.encode
"""Encode an event, item, slate or alert."""

encode_binary = _msgpack.encode
"""Encode `Examples`, `ModelUpdate` or `Outcomes`."""

Message = TypeVar("Message")

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What the decoders raise; the last where brackets are nested by the thousand."""


def decode_event(value: bytes | None) -> AnyEvent:
    """Decode one message of `events`.

    Raises
    ------
    Poison
        With the reason, when the value is not a valid event.

    Examples
    --------
    >>> decode_event(b'{"type":"click","user_id":"u","item_id":"i","ts":1700000000000}').item_id
    'i'
    >>> decode_event(b'{"type":"click","user_id":"","item_id":"i","ts":1700000000000}')
    Traceback (most recent call last):
    stream.errors.Poison: Expected `str` of length >= 1 - at `$.user_id`
    """
    try:  # not by `_decode`: a second call would be felt here
        return _event.decode(value or b"")
    except _UNREADABLE as error:
        raise Poison(str(error)) from None


def decode_item(value: bytes | None) -> Item:
    """Decode one message of `items` (no tombstone); raises as `decode_event`."""
    return _decode(_item.decode, value)


def decode_examples(value: bytes | None) -> Examples:
    """Decode one message of `examples`; raises as `decode_event`."""
    return _decode(_examples.decode, value)


def decode_model(value: bytes | None) -> ModelUpdate:
    """Decode one message of `model`; raises as `decode_event`."""
    return _decode(_model.decode, value)


def decode_outcomes(value: bytes | None) -> Outcomes:
    """Decode one message of `outcomes`; raises as `decode_event`."""
    return _decode(_outcomes.decode, value)


def _decode(decode: Callable[[bytes], Message], value: bytes | None) -> Message:
    try:
        return decode(value or b"")
    except _UNREADABLE as error:
        raise Poison(str(error)) from None


def epoch_ms(ts: Timestamp) -> int:
    """Milliseconds since the epoch.

    Raises
    ------
    Poison
        When `ts` is before 2000, after 2100, or has no time zone.

    Examples
    --------
    >>> epoch_ms(1700000000000)
    1700000000000
    >>> epoch_ms(1700000000)
    Traceback (most recent call last):
    stream.errors.Poison: ts 1700000000 is before 2000-01-01: it is read as milliseconds since the epoch
    """
    if isinstance(ts, datetime):
        if ts.tzinfo is None:
            raise Poison("ts has no time zone: end it in Z or an offset")
        ts = round(ts.timestamp() * 1000)
    if ts < EARLIEST_TS:
        raise Poison(f"ts {ts} is before 2000-01-01: it is read as milliseconds since the epoch")
    if ts > LATEST_TS:
        raise Poison(f"ts {ts} is after 2100-01-01: it is read as milliseconds since the epoch")
    return ts
