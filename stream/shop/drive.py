"""Drives the simulated shop in real time, or as fast as the stack follows."""

from __future__ import annotations

import logging
from collections.abc import Callable

from stream.errors import Retryable
from stream.shop.client import TICK_S, Shop

RETRY_S = 1.0
FOLLOW_STEPS = round(1 / TICK_S)

logger = logging.getLogger(__name__)


def run(
    shop: Shop,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    stop: Callable[[], bool],
    *,
    fast: bool = False,
    follow: Callable[[], None] = lambda: None,
) -> None:
    """Drive a shop until `stop`.

    After a pause of the process it catches up. While the brokers are away it keeps what happened and
    tries again.

    Parameters
    ----------
    clock, sleep
        Seconds; `clock` need only move forward.
    stop
        Asked before every step.
    fast
        As fast as the stack follows, instead of in real time. The shop's time then runs ahead of the
        clock: give it a `start_ms` far enough back.
    follow
        Called after every second of a fast run; returns when the stack is ready for more, such as
        `stream.replay.Flow.wait`.
    """
    start = clock()
    now, steps = 0.0, 0
    while not stop():
        now = now + TICK_S if fast else clock() - start
        try:
            shop.step(now)
            if fast and (steps := steps + 1) % FOLLOW_STEPS == 0:
                follow()
        except Retryable as error:
            logger.warning("shop: %s; trying again in %g s", error, RETRY_S)
            sleep(RETRY_S)
            continue
        if not fast:
            sleep(max(0.0, TICK_S - (clock() - start - now)))
