from __future__ import annotations

from stream.dead_letters import MAX_BYTES, MAX_KEY, dead_letter
from stream.log import Records


def _letter(key: bytes | None, value: bytes | None, reason: str = "because") -> tuple[bytes | None, ...]:
    records = Records("events", 3, [7, 8], [0, 0], [None, key], [None, value])
    letter = dead_letter(records, 1, reason, "rank", 12.5)
    headers = dict(letter.headers)
    return letter.key, letter.value, headers


def test_a_dead_letter_is_the_record_with_a_word_on_why() -> None:
    assert _letter(b"\xff\x00", b"\xfe") == (
        b"\xff\x00", b"\xfe",
        {
            "reason": b"because", "role": b"rank", "topic": b"events", "partition": b"3", "offset": b"8",
            "time": b"12500",
        },
    )  # fmt: skip
    assert _letter(None, None)[:2] == (None, None)


def test_what_is_too_long_for_a_broker_is_cut_and_says_so() -> None:
    key, value, headers = _letter(b"k" * 2_000_000, b"v" * 10_000_000, "why " * 1000)
    assert (len(key), len(value)) == (MAX_KEY, MAX_BYTES)
    assert (headers["key-bytes"], headers["bytes"]) == (b"2000000", b"10000000")
    assert len(headers["reason"]) == 1000
    assert MAX_KEY + MAX_BYTES + sum(len(k) + len(v) for k, v in headers.items()) < 1_000_000


def test_a_reason_may_hold_anything() -> None:
    assert _letter(None, b"", "\ud800 ü")[2]["reason"] == "? ü".encode()
