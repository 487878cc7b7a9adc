"""What benches measure and report: time of two ways to do one thing, taken in turns."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Skip(Exception):
    """This bench cannot run here; the message says why."""


@dataclass(frozen=True)
class Context:
    """Where a bench may write, and whether it only shows that it still runs."""

    directory: Path
    quick: bool

    def size(self, whole: int, quick: int) -> int:
        """`whole`, or `quick` when it only has to run."""
        return quick if self.quick else whole

    @property
    def seconds(self) -> int:
        """Of traffic that the shared world has seen."""
        return self.size(6, 2)

    @property
    def visits(self) -> int:
        """A second, of that traffic."""
        return self.size(400, 100)

    @property
    def rounds(self) -> int:
        """How often each way is measured."""
        return self.size(3, 1)


class Figure(NamedTuple):
    """One line of a result; `ratio` is ours over the alternative."""

    what: str
    unit: str
    ours: float
    alternative: str
    other: float

    @property
    def ratio(self) -> float:
        """Ours over the alternative; NaN where that is zero."""
        return self.ours / self.other if self.other else float("nan")


class Spent(NamedTuple):
    """Seconds by the clock, and of all threads of this process together."""

    wall: float
    cpu: float


class Watch:
    """Counts from its creation.

    >>> Watch().spent().wall < 60
    True
    """

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def spent(self) -> Spent:
        """What has passed since."""
        return Spent(time.perf_counter() - self._wall, time.process_time() - self._cpu)


def timed(run: Callable[[], object], times: int = 1) -> Callable[[], Spent]:
    """Make a measurement of `run`: the mean of some calls."""

    def measure() -> Spent:
        watch = Watch()
        for _ in range(times):
            run()
        wall, cpu = watch.spent()
        return Spent(wall / times, cpu / times)

    return measure


def alternate(rounds: int, runs: Sequence[Callable[[], Spent]]) -> list[Spent]:
    """Measure each of `runs` once per round, in turns, so that all see the same machine; medians.

    A first round does not count: a process that has run for a while has its memory and caches.

    >>> ticks = iter([9.0, 9.0, 1.0, 5.0, 3.0, 5.0, 2.0, 5.0])
    >>> run = lambda: Spent(next(ticks), 0.0)
    >>> [spent.wall for spent in alternate(3, [run, run])]
    [2.0, 5.0]
    """
    gc.collect()
    gc.freeze()  # what earlier benches left is not this one's to look through
    _, *taken = [[run() for run in runs] for _ in range(1 + rounds)]
    return [
        Spent(statistics.median(s.wall for s in each), statistics.median(s.cpu for s in each))
        for each in zip(*taken, strict=True)
    ]


def rates(what: str, unit: str, count: int, ours: Spent, alternative: str, other: Spent) -> list[Figure]:
    """Two figures: `count` units per second, and CPU seconds per million of them."""
    return [
        Figure(what, f"{unit}/s", count / ours.wall, alternative, count / other.wall),
        Figure(
            what, f"CPU s per million {unit}", 1e6 * ours.cpu / count, alternative, 1e6 * other.cpu / count
        ),
    ]


def machine() -> dict[str, str | int]:
    """Where this runs."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cores": os.cpu_count() or 1,
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def load() -> float:
    """How many threads want a core, over the last minute: near the number of cores, figures mean little."""
    return round(os.getloadavg()[0], 1)
