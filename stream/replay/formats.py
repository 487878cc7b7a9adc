"""Recorded streams as events: one function per format, one row in, its records out.

========  ===================================================================================
events    JSON lines of our own events (`stream.messages`); without a ``type``, of catalogue entries,
          with a ``ts`` that says when they became known
rees46    a view is a click without a list; catalogue fields become `items`
tmall     ``fav`` is a click
trivago   a clickout is an impression of its list and a click on its reference; what touches an
          item is a click without a list; searches, filters and sort orders are searches
========  ===================================================================================

A row that does not fit raises `Poison`, `KeyError` or `ValueError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from stream.errors import Poison
from stream.messages import (
    AnyEvent,
    Cart,
    Click,
    Impression,
    Item,
    Purchase,
    Remove,
    Search,
    Timestamp,
    decode_event,
    decode_item,
    encode_json,
    epoch_ms,
)

Row = Mapping[str, str]
T = TypeVar("T")


class Recorded(NamedTuple):
    """One record to publish.

    Attributes
    ----------
    ts : int
        Event time, ms since the epoch.
    order : tuple
        Breaks ties of `ts`; what is left keeps the order of the file.
    topic, key, value
        The record.
    rows : int
        What the event costs a learner: the items of an impression, else 1.
    """

    ts: int
    order: tuple[str, int]
    topic: str
    key: bytes
    value: bytes
    rows: int = 1


def record(event: AnyEvent, order: tuple[str, int] = ("", 0)) -> Recorded:
    """Encode one event, checked against the contract.

    >>> record(Click(user_id="u", item_id="i", ts=1700000000000)).key
    b'u'
    """
    value = encode_json(event)
    ts = epoch_ms(decode_event(value).ts)
    rows = len(event.items) if isinstance(event, Impression) else 1
    return Recorded(ts, order, "events", event.user_id.encode(), value, rows)


class Format(Protocol):
    """Turns rows of one file into records."""

    columns: Sequence[str]
    """What a table must have; empty for JSON lines, whose rows have one column, ``line``."""

    def read(self, row: Row, name: str) -> list[Recorded]:
        """Records of one row; `name` names the row."""
        ...


class _Line(msgspec.Struct):
    """What tells a catalogue entry from an event."""

    type: object = None
    user_id: object = None
    ts: Timestamp | None = None


class Events:
    """Our own events and catalogue; an event without an `event_id` gets its place in the file for one."""

    columns: Sequence[str] = ()

    def read(self, row: Row, name: str) -> list[Recorded]:
        """The event or catalogue entry of one line."""
        line = row["line"].encode("utf-8", "surrogateescape")
        told = _tell(line)
        if told.type is None and told.user_id is None and told.ts is not None:
            item = decode_item(line)
            return [Recorded(epoch_ms(told.ts), ("", 0), "items", item.item_id.encode(), encode_json(item))]
        event = decode_event(line)
        if event.event_id is None:
            event = msgspec.structs.replace(event, event_id=name)
        return [record(event)]


def _tell(line: bytes) -> _Line:
    try:
        return msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Line()  # no event either, which says what is wrong


class Rees46:
    """A shop's log; what it says of an item goes before each event."""

    columns: Sequence[str] = (
        "event_time",
        "event_type",
        "product_id",
        "category_id",
        "category_code",
        "brand",
        "price",
        "user_id",
        "user_session",
    )
    KINDS: Mapping[str, type[Click | Cart | Purchase | Remove]] = {
        "view": Click,
        "cart": Cart,
        "purchase": Purchase,
        "remove_from_cart": Remove,
    }

    def read(self, row: Row, name: str) -> list[Recorded]:
        """Records of one row."""
        kind = _kind(self.KINDS, row["event_type"])
        event = kind(
            user_id=row["user_id"],
            ts=_utc(row["event_time"]),
            event_id=name,
            item_id=row["product_id"],
            price=float(row["price"]) if row["price"] else None,
            session_id=row["user_session"] or None,
        )
        feedback = record(event)
        return [self._item(row, event.price, feedback.ts), feedback]

    def _item(self, row: Row, price: float | None, ts: int) -> Recorded:
        item = Item(
            item_id=row["product_id"],
            category=row["category_code"] or row["category_id"],
            brand=row["brand"],
            price=price,
        )
        value = encode_json(item)
        decode_item(value)
        return Recorded(ts, ("", 0), "items", item.item_id.encode(), value)


class Tmall:
    """Favourites, carts and purchases."""

    columns: Sequence[str] = ("timestamp", "user_id", "item_id", "event")
    KINDS: Mapping[str, type[Click | Cart | Purchase]] = {"fav": Click, "cart": Cart, "purchase": Purchase}

    def read(self, row: Row, name: str) -> list[Recorded]:
        """Records of one row."""
        kind = _kind(self.KINDS, row["event"])
        ts = int(row["timestamp"]) * 1000
        return [record(kind(user_id=row["user_id"], ts=ts, event_id=name, item_id=row["item_id"]))]


class Trivago:
    """Hotel searches; a list is named by user, session and step, and so is the click on it."""

    columns: Sequence[str] = (
        "user_id",
        "session_id",
        "timestamp",
        "step",
        "action_type",
        "reference",
        "platform",
        "city",
        "device",
        "current_filters",
        "impressions",
        "prices",
    )

    def read(self, row: Row, name: str) -> list[Recorded]:
        """Records of one row."""
        action, user, ts = row["action_type"], row["user_id"], int(row["timestamp"]) * 1000
        order = (user, int(row["step"]))
        context = {key: row[key] for key in ("platform", "city", "device") if row[key]}
        context["action"] = action
        if row["current_filters"]:
            context["filters"] = row["current_filters"][:1024]
        if action == "clickout item":
            return self._clickout(row, name, ts, order, context)
        if action.startswith("interaction item") or action == "search for item":
            item = _item_id(row["reference"])
            click = Click(
                user_id=user,
                ts=ts,
                event_id=name,
                context=context,
                item_id=item,
                session_id=row["session_id"] or None,
            )
            return [record(click, order)]
        if action in ("search for destination", "search for poi", "filter selection", "change of sort order"):
            search = Search(user_id=user, ts=ts, event_id=name, context=context, query=row["reference"])
            return [record(search, order)]
        raise Poison(f"unknown action {action!r}")

    def _clickout(
        self, row: Row, name: str, ts: int, order: tuple[str, int], context: dict[str, str]
    ) -> list[Recorded]:
        items = row["impressions"].split("|")
        prices = [float(price) for price in row["prices"].split("|")]
        if len(items) != len(prices):
            raise Poison(f"{len(items)} impressions with {len(prices)} prices")
        slate_id = f"{row['user_id']}-{row['session_id']}-{row['step']}"
        clicked = _item_id(row["reference"])
        shown = Impression(
            user_id=row["user_id"],
            ts=ts,
            event_id=f"{name}-list",
            context=context,
            items=items,
            slate_id=slate_id,
            prices=prices,
        )
        click = Click(
            user_id=row["user_id"],
            ts=ts,
            event_id=name,
            context=context,
            item_id=clicked,
            slate_id=slate_id,
            price=prices[items.index(clicked)] if clicked in items else None,
            session_id=row["session_id"] or None,
        )
        return [record(shown, order), record(click, order)]


FORMATS: Mapping[str, Callable[[], Format]] = {
    "events": Events,
    "rees46": Rees46,
    "tmall": Tmall,
    "trivago": Trivago,
}


def _kind(kinds: Mapping[str, T], name: str) -> T:
    if name not in kinds:
        raise Poison(f"unknown event {name!r}; known are {', '.join(kinds)}")
    return kinds[name]


def _item_id(reference: str) -> str:
    if not reference.isdigit():
        raise Poison(f"reference {reference!r} names no item")
    return reference


def _utc(text: str) -> int:
    """Milliseconds since the epoch.

    >>> _utc("2019-10-01 00:00:00 UTC")
    1569888000000
    """
    moment, zone = text.rsplit(" ", 1)
    if zone != "UTC":
        raise Poison(f"{text!r} does not end in UTC")
    return int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() * 1000)
