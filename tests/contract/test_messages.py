"""Every message that crosses a topic comes back as it went; what is wrong is refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from models.batch import Shape
from stream.errors import Poison
from stream.messages import (
    CUBES,
    EARLIEST_TS,
    MAX_LIST,
    Alert,
    AnyEvent,
    Cart,
    Click,
    Dismiss,
    Examples,
    Impression,
    Item,
    ModelUpdate,
    ModelVersion,
    Outcomes,
    Position,
    Purchase,
    Refund,
    Remove,
    Search,
    Slate,
    SlateItem,
    decode_event,
    decode_examples,
    decode_item,
    decode_model,
    decode_outcomes,
    encode_binary,
    encode_json,
    epoch_ms,
    slate_decoder,
)

TS = 1_700_000_000_000
EVENTS: list[AnyEvent] = [
    Impression(
        user_id="u", ts=TS, items=["a", "b"], slate_id="s", trace="t", prices=[1.5, 0], surface="home"
    ),
    Click(user_id="u", ts=TS, item_id="a", slate_id="s", price=2.0, session_id="x", event_id="e"),
    Cart(user_id="u", ts=TS, item_id="a", context={"device": "phone"}),
    Purchase(user_id="u", ts=TS, item_id="a", price=9.5, quantity=3),
    Remove(user_id="u", ts=TS, item_id="a"),
    Refund(user_id="u", ts=TS, item_id="a"),
    Dismiss(user_id="u", ts=TS, item_id="a"),
    Search(user_id="ü\U0001f600", ts=TS, query="rain jacket"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_an_event_comes_back_as_it_went(event: AnyEvent) -> None:
    assert decode_event(encode_json(event)) == event


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_unknown_fields_are_ignored(event: AnyEvent) -> None:
    fields = json.loads(encode_json(event)) | {"colour": {"deep": [1, 2]}}
    assert decode_event(json.dumps(fields).encode()) == event


def test_times_are_milliseconds_or_iso_8601() -> None:
    text = b'{"type":"click","user_id":"u","item_id":"a","ts":"2023-11-14T22:13:20Z"}'
    assert epoch_ms(decode_event(text).ts) == TS


CLICK: dict[str, Any] = {"type": "click", "user_id": "u", "item_id": "a", "ts": TS}
SHOWN: dict[str, Any] = {"type": "impression", "user_id": "u", "items": ["a"], "ts": TS}


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (CLICK | {"type": "teleport"}, "Invalid value 'teleport'"),
        (CLICK | {"user_id": ""}, "$.user_id"),
        (CLICK | {"user_id": "u" * 257}, "$.user_id"),
        (CLICK | {"user_id": 7}, "$.user_id"),
        (CLICK | {"item_id": None}, "$.item_id"),
        (CLICK | {"price": -1}, "$.price"),
        (CLICK | {"price": "9"}, "$.price"),
        (CLICK | {"price": 1e10}, "$.price"),
        (CLICK | {"quantity": 0}, "$.quantity"),
        (CLICK | {"quantity": 10**30}, "$.quantity"),
        (CLICK | {"ts": "yesterday"}, "$.ts"),
        (CLICK | {"ts": None}, "$.ts"),
        ({k: v for k, v in CLICK.items() if k != "ts"}, "missing required field `ts`"),
        ({k: v for k, v in CLICK.items() if k != "item_id"}, "missing required field `item_id`"),
        (SHOWN | {"items": []}, "$.items"),
        (SHOWN | {"items": ["a"] * (MAX_LIST + 1)}, "$.items"),
        (SHOWN | {"items": ["a", ""]}, "$.items[1]"),
        (SHOWN | {"prices": [-1]}, "$.prices[0]"),
    ],
)
def test_a_wrong_event_is_refused_with_its_reason(event: dict[str, Any], reason: str) -> None:
    with pytest.raises(Poison) as refused:
        decode_event(json.dumps(event).encode())
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [None, b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"type":"click","user_id":"u","item_id":"a","ts":NaN}'],
)
def test_what_is_no_event_is_refused(value: bytes | None) -> None:
    with pytest.raises(Poison):
        decode_event(value)


@pytest.mark.parametrize("ts", [0, -5, EARLIEST_TS - 1, TS // 1000])
def test_a_time_before_2000_is_refused(ts: int) -> None:
    with pytest.raises(Poison, match="before 2000"):
        epoch_ms(ts)


def test_a_time_without_zone_is_refused() -> None:
    text = b'{"type":"click","user_id":"u","item_id":"a","ts":"2023-11-14T22:13:20"}'
    with pytest.raises(Poison, match="time zone"):
        epoch_ms(decode_event(text).ts)


def test_an_item_comes_back_as_it_went() -> None:
    item = Item(
        item_id="a",
        category="c",
        brand="b",
        price=1.0,
        title="t",
        available=False,
        vector=[0.5],
        published_at=TS,
    )
    assert decode_item(encode_json(item)) == item


@pytest.mark.parametrize("value", [b"", b"{}", b'{"item_id":""}', b'{"item_id":"a","price":-1}'])
def test_a_wrong_item_is_refused(value: bytes) -> None:
    with pytest.raises(Poison):
        decode_item(value)


def test_a_slate_comes_back_as_it_went() -> None:
    slate = Slate(
        user_id="u",
        slate_id="lr-0-1",
        ts=TS,
        arm="fresh",
        items=[
            SlateItem("a", 1.0, 0.1, 0.02, 0.01, "near"),
            SlateItem("b", 0.5, 0.1, 0.02, 0.01, "new", explored=True),
        ],
        model=ModelVersion("1-2", TS),
        event=Position(0, 1, TS),
        trace="fresh.1-2.abc",
        expires=TS + 1,
    )
    assert slate_decoder.decode(encode_json(slate)) == slate


def test_an_alert_is_plain_json() -> None:
    alert = Alert(rule="r", ts=TS, severity="warning", message="m", values={"x": 1.0})
    assert json.loads(encode_json(alert)) == {
        "rule": "r",
        "ts": TS,
        "severity": "warning",
        "message": "m",
        "values": {"x": 1.0},
    }


def test_examples_come_back_as_they_went() -> None:
    columns = {
        name: bytes([i])
        for i, name in enumerate(Examples.__struct_fields__)
        if name not in _PLAIN_OF_EXAMPLES
    }
    message = Examples(schema=Shape().schema, partition=1, first=2, last=3, names={2**63: "a"}, **columns)
    assert decode_examples(encode_binary(message)) == message


_PLAIN_OF_EXAMPLES = ("schema", "partition", "first", "last", "names")


@pytest.mark.parametrize("part", [{"payload": b"delta"}, {"uri": "file", "checksum": 7}])
def test_a_model_update_comes_back_as_it_went(part: dict[str, Any]) -> None:
    update = ModelUpdate(slot="fresh", epoch=1, n=2, trained_through=TS, **part)
    assert decode_model(encode_binary(update)) == update


def test_outcomes_of_every_cube_come_back_as_they_went() -> None:
    cubes = {name: {column: [1] for column in (*cube.dims, *cube.sums)} for name, cube in CUBES.items()}
    message = Outcomes(source="rank", partition=0, block=1, version=2, cubes=cubes)
    assert decode_outcomes(encode_binary(message)) == message


@pytest.mark.parametrize("decode", [decode_examples, decode_model, decode_outcomes])
@pytest.mark.parametrize("value", [b"", b"\x00", b"\x93\x01", b"{}", b"\xff" * 10])
def test_damaged_binary_is_refused(decode: Any, value: bytes) -> None:
    with pytest.raises(Poison):
        decode(value)
