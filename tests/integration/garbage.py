"""What must not be taken in: for each topic, messages that are wrong in one way."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec

from stream.messages import ModelUpdate, Outcomes, encode_binary

BIG, TOO_BIG = 4_000_000, 10_000_000
"""Bytes; the embedded broker keeps 5 MiB of a partition, and a larger message pushes all others out."""


def event(**fields: Any) -> bytes:
    """A click as JSON, but for `fields`."""
    good = {"type": "click", "user_id": "g", "item_id": "i1", "ts": time.time_ns() // 1_000_000}
    return json.dumps(good | fields).encode()


def shown(**fields: Any) -> bytes:
    """An impression as JSON, but for `fields`."""
    return event(type="impression", **({"items": ["i1", "i2"]} | fields))


EVENTS: dict[str, bytes | None] = {
    "null": None,
    "empty": b"",
    "not JSON": b"{nonsense",
    "binary": bytes(range(256)),
    "not UTF-8": b'{"type":"click","user_id":"\xff\xfe","item_id":"i","ts":1700000000000}',
    "a list": b"[]",
    "a number": b"7",
    "no type": b'{"user_id":"g","ts":1700000000000}',
    "unknown type": event(type="teleport"),
    "type of another kind": event(type=7),
    "type null": event(type=None),
    "no user": b'{"type":"click","item_id":"i","ts":1700000000000}',
    "empty user": event(user_id=""),
    "user is a number": event(user_id=7),
    "long user": event(user_id="u" * 257),
    "lone surrogate in user": rb'{"type":"click","user_id":"\ud800","item_id":"i","ts":1700000000000}',
    "lone surrogate in item": rb'{"type":"click","user_id":"g","item_id":"\udc00x","ts":1700000000000}',
    "surrogate bytes": b'{"type":"click","user_id":"g","item_id":"\xed\xa0\x80","ts":1700000000000}',
    "empty item": event(item_id=""),
    "item null": event(item_id=None),
    "no item": b'{"type":"click","user_id":"g","ts":1700000000000}',
    "ts negative": event(ts=-1),
    "ts in seconds": event(ts=1_700_000_000),
    "ts huge": event(ts=10**30),
    "ts beyond 64 bits": event(ts=2**63),
    "ts a fraction": event(ts=1.7e12 + 0.5),
    "ts far ahead": event(ts=4_000_000_000_000),
    "ts text": event(ts="yesterday"),
    "ts without zone": event(ts="2026-01-01T00:00:00"),
    "ts of year 1": event(ts="0001-01-01T00:00:00+14:00"),
    "ts of year 9999": event(ts="9999-12-31T23:59:59-14:00"),
    "ts true": event(ts=True),
    "ts NaN": event(ts=float("nan")),
    "price NaN": event(type="purchase", price=float("nan")),
    "price infinite": event(type="purchase", price=float("inf")),
    "price negative": event(type="purchase", price=-1),
    "price huge": event(type="purchase", price=1e300),
    "price text": event(type="purchase", price="9.99"),
    "quantity zero": event(type="purchase", quantity=0),
    "quantity huge": event(type="purchase", quantity=10**18),
    "quantity a fraction": event(type="purchase", quantity=1.5),
    "items empty": shown(items=[]),
    "items 10,000": shown(items=[f"i{k}" for k in range(10_000)]),
    "items of numbers": shown(items=[1, 2]),
    "items with an empty id": shown(items=["i1", ""]),
    "items text": shown(items="i1"),
    "prices too few": shown(prices=[1.0]),
    "prices negative": shown(prices=[1.0, -2.0]),
    "context of numbers": event(context={"device": 7}),
    "context text": event(context="phone"),
    "deep": b'{"type":"click","user_id":"g","ts":1700000000000,"item_id":'
    + b"[" * 100_000
    + b"]" * 100_000
    + b"}",
    "deep in a field of its own": event()[:-1] + b',"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "4 MB of a user": event(user_id="u" * BIG),
    "4 MB of nonsense": b"\x00" * BIG,
    "two events in one": event() + event(),
    "cut short": event()[:-5],
    "search without a query": event(type="search"),
    "event_id empty": event(event_id=""),
}
"""Values of `events`; each is a dead letter."""


def item(**fields: Any) -> bytes:
    """An entry of the catalogue as JSON, but for `fields`."""
    return json.dumps({"item_id": "junk", "category": "c"} | fields).encode()


ITEMS: dict[str, bytes | None] = {
    "empty": b"",
    "not JSON": b"{nonsense",
    "binary": bytes(range(256)),
    "no id": b'{"category":"c"}',
    "empty id": item(item_id=""),
    "id a number": item(item_id=7),
    "lone surrogate": rb'{"item_id":"\ud800"}',
    "price negative": item(price=-1),
    "price NaN": item(price=float("nan")),
    "price huge": item(price=1e39),
    "available text": item(available="yes"),
    "vector of text": item(vector=["a"]),
    "published huge": item(published_at=10**30),
    "published beyond 64 bits": item(published_at=2**63),
    "published in seconds": item(published_at=1_700_000_000),
    "published without zone": item(published_at="2026-01-01T00:00:00"),
    "deep": b'{"item_id":"junk","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "4 MB of a title": item(title="t" * BIG),
}
"""Values of `items`; each is a dead letter."""


def update(**fields: Any) -> bytes:
    """A step of the model that nobody is at, but for `fields`."""
    whole: dict[str, Any] = {"slot": "fresh", "epoch": 0, "n": 0, "trained_through": 0, "payload": b""}
    return encode_binary(ModelUpdate(**(whole | fields)))


MODEL: dict[str, bytes | None] = {
    "empty": b"",
    "not MessagePack": b"\xc1nonsense",
    "another struct": msgspec.msgpack.encode({"slot": "fresh"}),
    "slot unknown": update(slot="stale", epoch=10**6, n=1),
    "4 MB": b"\x00" * BIG,
}
"""Values of `model`; each is a dead letter."""

UNFIT_UPDATES: dict[str, bytes] = {
    "an older version": update(),
    "a version far ahead": update(epoch=10**6, n=2),
    "a snapshot that is not there": update(payload=None, uri="nothing.model", epoch=10**6, n=1),
    "a snapshot outside the store": update(payload=None, uri="../../settings.toml", epoch=10**6, n=1),
    "numbers beyond 64 bits": update(epoch=2**63, n=2**63),
}
"""Values of `model` that a rank at any version passes over."""

EXAMPLES: dict[str, bytes | None] = {
    "empty": b"",
    "JSON": event(),
    "another struct": msgspec.msgpack.encode([1, 2, 3]),
    "4 MB": b"\x00" * BIG,
}
"""Values of `examples`; each is a dead letter."""


def outcomes(**cubes: Any) -> bytes:
    """Counts of nobody."""
    return encode_binary(Outcomes(source="junk", partition=0, block=0, version=1, cubes=cubes))


_TRUTH = {"second": [1], "arm": ["a"], "impressions": [1], "expected": [0.5], "best": [1.0]}

OUTCOMES: dict[str, bytes | None] = {
    "empty": b"",
    "JSON": event(),
    "cube unknown": outcomes(nonsense={}),
    "column missing": outcomes(truth={"second": [1]}),
    "columns of different lengths": outcomes(truth=_TRUTH | {"arm": []}),
    "second negative": outcomes(truth=_TRUTH | {"second": [-1]}),
    "sum not finite": outcomes(truth=_TRUTH | {"best": [float("nan")]}),
    "4 MB": b"\x00" * BIG,
}
"""Values of `outcomes`; each is a dead letter."""
