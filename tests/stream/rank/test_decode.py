from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.ids import Names, Users, hash_id
from stream.log import Records
from stream.messages import LATEST_TS, MAX_LIST
from stream.partition import partition_of
from stream.rank.decode import CART, IMPRESSION, KINDS, SEARCH, Decoded, decode, pick
from stream.rank.recent import Recent
from tests.stream.rank.stage import T

AHEAD = 300_000


def _decode(*values: bytes | None, broker_ms: int = T) -> Decoded:
    n = len(values)
    records = Records("events", 0, list(range(10, 10 + n)), [broker_ms] * n, [None] * n, list(values))
    return decode(records, Users(7, 100), Names(100), Recent(600_000), AHEAD)


def test_some_events_are_picked_with_what_they_show() -> None:
    columns = _decode(
        _shown(items=["a", "b"], prices=[1, 2]), _event(), _shown(items=["c"]), _shown(items=["d", "e", "f"])
    ).columns
    whole = pick(columns, np.arange(4))
    assert [np.array_equal(x, y) for x, y in zip(whole, columns, strict=True)] == [True] * len(columns)
    some = pick(columns, np.array([1, 3]))
    assert [type(e).__name__ for e in some.events] == ["Click", "Impression"]
    assert (some.record.tolist(), some.start.tolist()) == ([1, 3], [0, 0, 3])
    assert some.shown.tolist() == [hash_id(name) for name in "def"]
    assert some.shown_price.tolist() == [-1.0] * 3
    assert [some.item_names[k] for k in some.shown_number] == ["d", "e", "f"]
    assert pick(columns, np.zeros(0, np.int64)).start.tolist() == [0]


def _event(**fields: object) -> bytes:
    event = {"type": "click", "user_id": "u", "item_id": "i", "ts": T} | fields
    return json.dumps({k: v for k, v in event.items() if v is not ...}).encode()


def _shown(**fields: object) -> bytes:
    return _event(**({"type": "impression", "item_id": ..., "items": ["a", "b"]} | fields))


def _reason(value: bytes | None, broker_ms: int = T) -> str:
    found = _decode(value, broker_ms=broker_ms)
    assert not found.columns.events
    (dead,) = found.dead
    return dead.reason


def test_columns_hold_what_the_events_say() -> None:
    values = (
        _event(type="cart", price=2.5, quantity=3, slate_id="lr-0-1"),
        _shown(prices=[1.5, 2], slate_id="theirs", ts=T + 7),
        _event(type="search", item_id=..., query="shoes"),
        _shown(items=["c"]),
    )
    found = _decode(*values)
    c = found.columns
    assert (found.dead, found.repeated) == ([], [])
    assert c.record.tolist() == [0, 1, 2, 3]
    assert c.offset.tolist() == [10, 11, 12, 13]
    assert c.ts.tolist() == [T, T + 7, T, T]
    assert c.kind.tolist() == [CART, IMPRESSION, SEARCH, IMPRESSION]
    assert c.user.tolist() == [hash_id("u")] * 4
    assert c.home.tolist() == [partition_of(b"u", 7)] * 4
    assert c.item.tolist() == [hash_id("i"), 0, 0, 0]
    assert c.item_names[c.item_number[0]] == "i"
    assert c.price.tolist() == [2.5, -1, -1, -1]
    assert c.quantity.tolist() == [3, 1, 1, 1]
    assert c.slate.tolist() == [hash_id("lr-0-1"), hash_id("theirs"), 0, 0]
    assert c.own.tolist() == [1, 0, 0, 0]
    assert c.start.tolist() == [0, 0, 2, 2, 3]
    assert c.shown.tolist() == [hash_id(x) for x in "abc"]
    assert c.shown_price.tolist() == [1.5, 2, -1]
    assert [c.item_names[k] for k in c.shown_number] == ["a", "b", "c"]


def test_every_type_of_event_has_a_kind() -> None:
    assert sorted(KINDS.values()) == list(range(8))
    for kind, code in KINDS.items():
        name = kind.__name__.lower()
        value = {"impression": _shown(), "search": _event(type="search", item_id=..., query="")}
        assert _decode(value.get(name, _event(type=name))).columns.kind.tolist() == [code]


def test_a_batch_without_events_has_empty_columns() -> None:
    columns = _decode(b"{", None).columns
    assert columns.start.tolist() == [0]
    assert len(columns.shown) == len(columns.ts) == 0


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "truncated"),
        (b"", "truncated"),
        (b"null", "Expected `object`"),
        (b"\xff\xfe", "malformed"),
        (_event(type="clik"), "Invalid value 'clik'"),
        (_event(type=...), "type"),
        (_event(user_id=""), "$.user_id"),
        (_event(user_id="x" * 257), "$.user_id"),
        (_event(item_id=...), "item_id"),
        (_event(item_id=5), "$.item_id"),
        (_event(ts="2023-11-14T22:14:00"), "time zone"),
        (_event(ts=1_700_000_040), "before 2000"),
        (_event(ts=-5), "before 2000"),
        (_event(ts=10**30), "after 2100"),
        (_event(ts=1.5), "$.ts"),
        (_event(ts="9999-12-31T23:59:59-14:00"), "after 2100"),
        (_event(ts="0001-01-01T00:00:00+14:00"), "before 2000"),
        (_event(ts=True), "$.ts"),
        (_event(price=-1), "$.price"),
        (_event(price=1e10), "$.price"),
        (_event(price=9).replace(b"9", b"NaN"), "malformed"),
        (_event(price=9).replace(b"9", b"1e999"), "$.price"),
        (_event(quantity=0), "$.quantity"),
        (_event(quantity=10**30), "$.quantity"),
        (_event(event_id=""), "$.event_id"),
        (_shown(items=[]), "$.items"),
        (_shown(items=["x"] * (MAX_LIST + 1)), "$.items"),
        (_shown(items=["x"] * 10_000), "$.items"),
        (_shown(items=["x", ""]), "$.items"),
        (_shown(prices=[1]), "prices has 1 entries for 2 items"),
        (_shown(prices=[1, -1]), "$.prices"),
        (_shown(prices=[1, None]), "$.prices"),
        (_event(user_id="\ud800"), "surrogate"),
        (_event(x=1).replace(b"1}", b"[" * 100_000), "recursion"),
    ],
)  # fmt: skip
def test_what_is_no_event_is_dead_and_says_why(value: bytes | None, reason: str) -> None:
    assert reason in _reason(value)


def test_unknown_fields_and_repeated_items_are_accepted() -> None:
    found = _decode(_shown(items=["a", "a"], colour="red", deep=[[{}]]))
    assert found.columns.shown.tolist() == [hash_id("a")] * 2


def test_the_largest_list_and_a_message_of_ten_megabytes_are_accepted() -> None:
    found = _decode(_shown(items=["x"] * MAX_LIST), _event(blob="x" * 10_000_000))
    assert len(found.columns.events) == 2


def test_a_time_zone_is_understood() -> None:
    found = _decode(_event(ts="2023-11-14T23:14:00.123+01:00"))
    assert found.columns.ts.tolist() == [T + 123]


def test_an_event_may_be_five_minutes_ahead_of_the_broker_but_no_more() -> None:
    assert len(_decode(_event(ts=T + AHEAD)).columns.events) == 1
    assert "ahead of the broker's time" in _reason(_event(ts=T + AHEAD + 1))


def test_no_time_is_so_late_that_it_does_not_fit_a_column_of_seconds() -> None:
    broker_ms = 1 << 60
    assert len(_decode(_event(ts=LATEST_TS), broker_ms=broker_ms).columns.events) == 1
    assert "after 2100" in _reason(_event(ts=LATEST_TS + 1), broker_ms)
    assert LATEST_TS // 1000 < 1 << 32


def test_an_event_id_counts_once() -> None:
    found = _decode(_event(event_id="e"), _event(event_id="f"), _event(event_id="e", user_id="other"))
    assert found.repeated == [2]
    assert found.columns.record.tolist() == [0, 1]


def test_a_dead_letter_does_not_use_up_its_event_id() -> None:
    found = _decode(_event(event_id="e", ts=5), _event(event_id="e"))
    assert [d.record for d in found.dead] == [0]
    assert found.columns.record.tolist() == [1]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
_names = ("user_id", "ts", "item_id", "items", "prices", "price", "quantity", "event_id", "query", "context")
_nearly = st.fixed_dictionaries(
    {"type": st.sampled_from(["click", "impression", "search", "purchase", "x"])},
    optional={n: _json | st.just(T) | st.just("a") | st.just(["a"]) for n in _names},
).map(lambda event: json.dumps(event).encode())


@settings(max_examples=300, deadline=None)
@given(st.lists(st.none() | st.binary(max_size=60) | _nearly | st.just(_event(event_id="e")), max_size=6))
def test_every_record_is_valid_dead_or_repeated(values: list[bytes | None]) -> None:
    found = _decode(*values)
    parts = [*found.columns.record.tolist(), *(d.record for d in found.dead), *found.repeated]
    assert sorted(parts) == list(range(len(values)))
    assert all(d.reason for d in found.dead)


def test_a_record_time_that_no_clock_can_say_becomes_the_nearest_that_one_can() -> None:
    assert _decode(_event(), broker_ms=2**62).columns.broker_ts.tolist() == [LATEST_TS]
