"""The demo: the whole stack with a simulated shop, watched live."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from stream.broker import KafkaLog
from stream.clickhouse import Store
from stream.embedded.stack import Stack
from stream.errors import LiverankError, Retryable
from stream.report import Report, read, render
from stream.settings import THREE_ARMS, Settings
from stream.shop import Shop, ShopSettings, run

LOOK_S = 2.0
"""The live view is drawn anew so often, where there is a terminal."""
LINE_S = 15.0
"""A line is printed so often, where there is none."""
SETTLE_S = 6.0
"""Time for the last outcomes to reach ClickHouse: a second in the roles, up to 1.5 s in Faust's fetch."""

HALF_LIVES = {
    "half_life_short_s": 60.0,
    "half_life_long_s": 600.0,
    "pair_half_life_s": 60.0,
    "history_half_life_s": 120.0,
}
"""The shop lives a month in five minutes: what fades, fades so much faster."""


MATURE_S = 120.0
"""By then 98.8% of what is bought in the simulated shop has been."""


def settings_of(settings: Settings) -> Settings:
    """The demo's settings: three arms, and times that fit the simulated shop."""
    train = replace(settings.train, conversion_wait_s=MATURE_S, **HALF_LIVES)
    return replace(settings, arms=THREE_ARMS, train=train)


def play(
    settings: Settings,
    shop: ShopSettings,
    seconds: float,
    console: Console,
    tell: Callable[[str], None],
    stop: Callable[[], bool],
) -> Report:
    """Run stack and shop for `seconds`, show how it goes, return the final report.

    Raises
    ------
    Fatal
        When the stack cannot go on.
    """
    with tempfile.TemporaryDirectory(prefix="liverank-demo-") as directory:
        tell("starting broker, ClickHouse and the roles (the first start compiles kernels: up to a minute)")
        with Stack(settings_of(settings), Path(directory), tell, stop) as stack:
            store = Store(stack.settings.clickhouse)
            end = time.monotonic() + seconds
            visitors = _Shop(stack.settings, shop, lambda: stop() or time.monotonic() >= end)
            with _view(console) as show:
                while visitors.alive():
                    stack.watch()
                    show(store, max(0.0, end - time.monotonic()))
                    time.sleep(0.1)
            visitors.finish()
            settled = time.monotonic() + SETTLE_S
            while time.monotonic() < settled:
                stack.watch()
                time.sleep(0.1)
            return read(store)


class _Shop:
    """The simulated shop in a thread of its own; what it dies of is raised by `finish`."""

    def __init__(self, settings: Settings, shop: ShopSettings, stop: Callable[[], bool]) -> None:
        self._error: LiverankError | None = None
        self._thread = threading.Thread(target=self._run, args=(settings, shop, stop), daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        return self._thread.is_alive()

    def finish(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self, settings: Settings, shop: ShopSettings, stop: Callable[[], bool]) -> None:
        try:
            log = KafkaLog(settings.kafka)
            slates = log.broadcast_source("recommendations", {})
            client = Shop(shop, log.sink(), slates, int(time.time() * 1000))
            run(client, time.monotonic, time.sleep, stop)
            slates.close()
            log.close()
        except LiverankError as error:
            self._error = error


class _view:  # noqa: N801  used like a function
    """Shows the report while it grows: redrawn on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=1) if console.is_terminal else None
        self._next = 0.0

    def __enter__(self) -> Callable[[Store, float], None]:
        if self._live:
            self._live.start()
        return self._show

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def _show(self, store: Store, left: float) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (LOOK_S if self._live else LINE_S)
        try:
            report = read(store)
        except Retryable as error:  # ClickHouse is being started again
            self._console.print(str(error), markup=False)
            return
        if self._live:
            clock = Text(f"the shop closes in {left:.0f} s", style="dim")
            self._live.update(Group(clock, render(report)))
        else:
            self._console.print(line(report, left), highlight=False, soft_wrap=True)


def line(report: Report, left: float) -> str:
    """One line on how it goes.

    >>> line(Report(), 12.4)
    '12 s left'
    """
    arms = [f"{a.arm} {a.ctr:.2%}" for a in report.arms if a.ctr is not None]
    latency = [f"{f.kind.replace('_', ' ')} p50 {f.p50:.0f} ms p99 {f.p99:.0f} ms" for f in report.freshness]
    auc = [f"AUC {q.auc:.3f}" for q in report.quality if (q.task, q.lag) == ("click", "0") and q.auc]
    ctr = ["CTR " + ", ".join(arms)] if arms else []
    return "; ".join([f"{left:.0f} s left", *ctr, *auc, *latency])
