"""Publishes a recording: at a multiple of its own speed, or as fast as the stack follows."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial

from stream.errors import Fatal, Retryable
from stream.log import Output, Sink
from stream.replay.formats import Recorded

CHUNK = 1_000
"""Records published between two looks at the roles."""
TICK_S = 0.05
"""At a recorded speed records due within this time go out together."""
RETRIES, RETRY_S = 8, 0.5

logger = logging.getLogger(__name__)


def refuse_old(records: Sequence[Recorded], newest_ms: int, tolerance_ms: int) -> None:
    """Refuse a recording that begins before what the stack has already seen.

    Its visitors' sessions and counters would run backwards.

    Parameters
    ----------
    records
        Sorted by time.
    newest_ms
        Newest event time that rank has seen (`stream.replay.flow.newest_ms`); 0 for none.
    tolerance_ms
        How much older the recording may begin.

    Raises
    ------
    Fatal
        Saying both times, and what to do.
    """
    if records and records[0].ts < newest_ms - tolerance_ms:
        raise Fatal(
            f"the recording begins at {_moment(records[0].ts)}, but the stack has seen events of "
            f"{_moment(newest_ms)}: replay it into a fresh stack, or with --force"
        )


def replay(
    records: Sequence[Recorded],
    sink: Sink,
    *,
    progress: Callable[[int], None],
    pace: Callable[[], None],
    speed: float | None,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Publish records in their order.

    Parameters
    ----------
    records
        Sorted by time.
    sink
        Where to.
    progress
        Told how many records have been published and acknowledged so far.
    pace
        Called after every chunk; returns when the stack is ready for more (`Flow.wait`).
    speed
        Times the recorded speed; None for as fast as `pace` lets.
    clock, sleep
        Seconds.

    Raises
    ------
    Retryable
        When the brokers stay away.
    """
    chunks = _chunks(records) if speed is None else _timed(records, speed, clock, sleep)
    done = 0
    for chunk in chunks:
        _persist(partial(_send, deque(chunk), sink), sleep)
        done += len(chunk)
        progress(done)
        _persist(pace, sleep)


def _chunks(records: Sequence[Recorded]) -> Iterator[Sequence[Recorded]]:
    for first in range(0, len(records), CHUNK):
        yield records[first : first + CHUNK]


def _timed(
    records: Sequence[Recorded],
    speed: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[Sequence[Recorded]]:
    """Chunks, each when its first record is due; a reader that is late gets larger ones."""
    start, first = clock(), 0
    while first < len(records):
        due = (records[first].ts - records[0].ts) / 1000 / speed
        sleep(max(TICK_S if first else 0.0, start + due - clock()))
        reached = max(records[first].ts, records[0].ts + (clock() - start) * 1000 * speed)
        last = first
        while last < min(len(records), first + CHUNK) and records[last].ts <= reached:
            last += 1
        yield records[first:last]
        first = last


def _send(waiting: deque[Recorded], sink: Sink) -> None:
    """Publish and forget what waits; after a fault call again for the rest."""
    while waiting:
        sink.publish(Output(waiting[0].topic, waiting[0].key, waiting[0].value))
        waiting.popleft()
    sink.flush()


def _persist(call: Callable[[], None], sleep: Callable[[float], None]) -> None:
    """Call again, later and later, while a server is away."""
    for attempt in range(RETRIES):
        try:
            return call()
        except Retryable as error:
            wait = RETRY_S * 2**attempt
            logger.warning("replay: %s; trying again in %g s", error, wait)
            sleep(wait)
    return call()


def _moment(ts: int) -> str:
    """A time for people.

    >>> _moment(1700000000000)
    '2023-11-14 22:13:20 UTC'
    """
    return f"{datetime.fromtimestamp(ts / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
