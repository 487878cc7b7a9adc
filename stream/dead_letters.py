"""Where input goes that can never be handled: as it came, with a word on why."""

from __future__ import annotations

from stream.log import Output, Records

MAX_BYTES, MAX_KEY = 900_000, 10_000
"""What a broker takes with its default settings; a longer value or key is cut, and the letter says so."""


def dead_letter(records: Records, index: int, reason: str, role: str, now: float) -> Output:
    """Make the dead letter of one record.

    Parameters
    ----------
    records, index
        The batch, and the record in it.
    reason
        Why, for a person to read.
    role
        Who could not handle it.
    now
        Seconds since the epoch.

    Examples
    --------
    >>> letter = dead_letter(Records("events", 1, [7], [0], [b"u"], [b"{"]), 0, "not JSON", "rank", 0.0)
    >>> letter.value, dict(letter.headers)["offset"]
    (b'{', b'7')
    """
    key, value = records.keys[index], records.values[index]
    headers = [
        ("reason", reason.encode("utf-8", "replace")[:1000]),
        ("role", role.encode()),
        ("topic", records.topic.encode()),
        ("partition", str(records.partition).encode()),
        ("offset", str(records.offsets[index]).encode()),
        ("time", str(int(now * 1000)).encode()),
    ]
    if value is not None and len(value) > MAX_BYTES:
        headers.append(("bytes", str(len(value)).encode()))
        value = value[:MAX_BYTES]
    if key is not None and len(key) > MAX_KEY:
        headers.append(("key-bytes", str(len(key)).encode()))
        key = key[:MAX_KEY]
    return Output("dead-letters", key, value, headers=tuple(headers))
