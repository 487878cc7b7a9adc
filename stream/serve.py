"""Run one role in this process: build what it needs, and start over when a server was away."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from pathlib import Path

from stream.broker import KafkaLog
from stream.checkpoint import Store
from stream.errors import Retryable
from stream.log import Log
from stream.runner import Role, Runner
from stream.settings import Settings

BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
ROLES = ("rank", "train", "monitor")

logger = logging.getLogger(__name__)


def serve(role: str, settings: Settings, stop: Callable[[], bool], ready: Callable[[], None]) -> None:
    """Run `role` until `stop` says so.

    Parameters
    ----------
    role
        One of `ROLES`.
    stop
        Asked after every batch.
    ready
        Called once, when the role takes events.

    Raises
    ------
    Fatal
        When the role cannot go on.
    """
    if role == "monitor":
        from stream.monitor.app import run  # Faust takes a second to import, and only this role needs it

        run(settings, ready)
        return
    store = Store(Path(settings.checkpoints.path))
    teller = _Once(ready)
    failures = 0
    while not stop():
        log = KafkaLog(settings.kafka)
        try:
            runner = Runner(_role(role, settings, store, log), log, store, settings, time.time)
            runner.start()
            gc.collect()
            gc.freeze()  # modules and models stay: to look through them takes a tenth of a second each time
            while not stop():
                runner.once()
                failures = 0
                if runner.assigned:
                    teller()
            runner.close()
        except Retryable as error:
            # what was not acknowledged is made again from the checkpoint, as after a crash
            pause = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
            failures += 1
            logger.warning("%s: %s; starting over in %.1f s", role, error, pause)
            time.sleep(pause)
        finally:
            log.close()


class _Once:
    """Calls a function the first time only."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function: Callable[[], None] | None = function

    def __call__(self) -> None:
        if self._function is not None:
            self._function()
            self._function = None


def _role(name: str, settings: Settings, store: Store, log: Log) -> Role:
    # imported here so that rank runs without torch, and train without rank's kernels
    if name == "rank":
        from stream.rank.role import Rank

        return Rank(settings, store, log.identity("events"))
    from stream.train.role import Train

    return Train(settings, store, log.identity("examples"))
