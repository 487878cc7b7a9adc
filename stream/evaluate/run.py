"""One run: the stream in turns through rank and train, each on a log in memory, and the figures at its end.

A turn: some events enter the log, each at its own time, and rank takes them in; then train has a moment to
learn from them and publishes a version. Where lists are shown, the next turn's events come meanwhile: what is
judged then is what train says of lists when they arrive, before it learns from them. Rank's clock is the
events', train's counts turns: the same file gives the same figures, and train is as far behind as if a turn's
events came each second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from msgspec.structs import replace

from stream.checkpoint import Store
from stream.errors import Fatal
from stream.evaluate.apart import TICK_S, TICKS, Turns
from stream.evaluate.copies import Copy, Moments, every, frozen
from stream.evaluate.figures import Figures, figures_of_acts, figures_of_lists
from stream.evaluate.following import Following
from stream.evaluate.lists import Guesses, Shown
from stream.evaluate.watch import WatchedRank
from stream.log import Output
from stream.memory import MemoryLog
from stream.replay import Recorded
from stream.runner import LIMIT, Runner
from stream.settings import Arm, Settings, shape_of
from stream.train.join import decode, merge, pick

if TYPE_CHECKING:
    from stream.evaluate.linear import Linear

FRESH = "liverank"
FROZEN = "frozen after 1/8"
NEVER_S = 3e9
"""Seconds that no stream lasts."""


@dataclass(frozen=True)
class Options:
    """How to evaluate.

    Parameters
    ----------
    turn
        Events in a turn, after which rank gets a new model. The shortest interval of `sync_ms` ends a turn
        too.
    lag_ms
        The model with lagged weights is renewed so often.
    sync_ms
        Intervals of the table of `--sync`, by name; None: never.
    linear
        Whether the linear model of river takes part.
    """

    turn: int = 256
    lag_ms: int = 3_600_000
    sync_ms: tuple[tuple[str, int | None], ...] = ()
    linear: bool = True

    @property
    def span_ms(self) -> int:
        """Longest turn in event time."""
        return min((ms for _, ms in self.sync_ms if ms is not None), default=int(1000 * NEVER_S))


class Speed(NamedTuple):
    """Seconds that a run took, and of these: until it began, rank, what it is compared with, train alone."""

    events: int
    seconds: float
    start: float
    rank: float
    others: float
    train: float


def evaluate(
    records: Sequence[Recorded],
    settings: Settings,
    options: Options,
    directory: Path,
    train: Turns,
    *,
    timer: Callable[[], float],
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Figures, Speed]:
    """Run a stream through rank and train, and judge what they predicted.

    Parameters
    ----------
    records
        Sorted by time.
    settings
        The whole tree; partitions, arms and what is only written to disk are set here.
    options
        What to compare, and how finely.
    directory
        An empty one, for the initial model.
    train
        Not begun yet.
    timer
        Seconds, to tell the speed with.
    progress
        Told how many records are done.

    Raises
    ------
    Fatal
        When there are no events, or a turn is too long, also for what train keeps.
    """
    if not 1 <= options.turn <= LIMIT:
        raise Fatal(f"a turn has 1 to {LIMIT} events, not {options.turn}")
    events = [r for r in records if r.topic == "events"]
    if not events:
        raise Fatal("there are no events to evaluate on")
    run = Run(events, still(settings), options, directory, train, timer)
    done = 0
    for part in turns(records, options.turn, options.span_ms):
        run.turn(part)
        done += len(part)
        progress(done)
    return run.figures(), run.speed()


def turns(records: Sequence[Recorded], size: int, span_ms: int) -> Iterator[Sequence[Recorded]]:
    """Cut records before more than `size` events, or events of more than `span_ms`, would be together."""
    first = count = 0
    for k, record in enumerate(records):
        event = record.topic == "events"
        if (event and count == size) or record.ts - records[first].ts >= span_ms:
            yield records[first:k]
            first, count = k, 0
        count += event
    if first < len(records):
        yield records[first:]


def still(settings: Settings) -> Settings:
    """The settings, without what takes time and changes nothing here: files, arms, partitions, shadows."""
    return replace(
        settings,
        kafka=replace(settings.kafka, partitions=1),
        checkpoints=replace(settings.checkpoints, seconds=NEVER_S, events=1 << 60),
        train=replace(
            settings.train, publish_s=TICKS * TICK_S, snapshot_s=NEVER_S, frozen_after_s=NEVER_S, shadows=0
        ),
        arms=(Arm(name="fresh", share=1.0, model="fresh"),),
    )


class Run:
    """The log, its clock, rank, and those who watch; train has a log of its own.

    Parameters
    ----------
    events
        Of the stream, to be given turn by turn.
    settings
        `still`.
    options, directory, train, timer
        As for `evaluate`.
    """

    def __init__(
        self, events: Sequence[Recorded], settings: Settings, options: Options, directory: Path,
        train: Turns, timer: Callable[[], float],
    ) -> None:  # fmt: skip
        self._timer, self._began = timer, timer()
        self._spent = dict.fromkeys(("rank", "others", "train"), 0.0)
        self._options, self._events = options, events
        self._now = events[0].ts
        self._train, self._answer = train, train.begin(settings, directory, self._clock())
        self._log, store = MemoryLog(settings.kafka.counts(), self._clock), Store(directory)
        self._copies = {name: Copy(when) for name, when in _moments(events, options).items()}
        self._shown, self._following = Shown(), Following(self._copies, FRESH)
        self._shape, self._seed = shape_of(settings), settings.train.seed
        self._listed = any(r.value.startswith(b'{"type":"impression"') for r in events)
        self._guesses: Guesses | None = None
        self.rank = WatchedRank(
            settings, store, self._shown if self._listed else self._following, self._copies
        )
        self._rank = Runner(self.rank, self._log, store, settings, self._clock)
        self._rank.start(patience=0.0)
        self._start = timer() - self._began

    def turn(self, records: Sequence[Recorded]) -> None:
        """Let one turn pass.

        What a recording says of an item comes with an event on it: it is told after the events, for else
        rank would know of new items that somebody is about to touch.
        """
        for record in records:
            if record.topic == "events":
                self._now = record.ts
                self._append(record)
        if not self._listed:  # rank itself is judged: it waits for what was learned of the turn before
            self._time("train", self._hear)
        self._time("rank", self._serve)
        if self._listed:
            self._time("train", self._hear)
        examples = self._log.outputs("examples")
        self._answer = self._train.turn(self._clock(), examples)
        self._time("others", lambda: self._look(examples))
        for record in records:
            if record.topic != "events":
                self._append(record)
        self._forget()

    def figures(self) -> Figures:
        """Figures of all that has passed, at the end of it."""
        self._time("train", self._hear)
        self._time("others", lambda: self._look([]))
        synced, half = [name for name, _ in self._options.sync_ms], len(self._events) // 2
        if self._guesses is None:
            figures = figures_of_acts(self._following.placed(), self._following.acts, synced, half)
        else:
            figures = figures_of_lists(self._guesses.table(self._shown), synced, half)
        wrote = [dict(letter.headers)["role"] for letter in self._log.outputs("dead-letters")]
        refused, set_aside = wrote.count(b"rank"), wrote.count(b"train")
        return replace(figures, refused=refused, capped=self.rank.capped, set_aside=set_aside)

    def speed(self) -> Speed:
        """How long all that has passed took."""
        return Speed(len(self._events), self._timer() - self._began, self._start, **self._spent)

    def _clock(self) -> float:
        return self._now / 1000

    def _time(self, what: str, step: Callable[[], None]) -> None:
        before = self._timer()
        step()
        self._spent[what] += self._timer() - before

    def _serve(self) -> None:
        self._rank.once(0.0)

    def _hear(self) -> None:
        """Wait until train has learned the turn before; what it published can be read now."""
        self._learned = self._answer()
        self._log.append(self._learned.outputs)

    def _append(self, record: Recorded) -> None:
        self._log.append([Output(record.topic, record.key, record.value)])

    def _look(self, examples: list[Output]) -> None:
        """Note what train said of the lists of the turn before, and what others say of those of this one."""
        if not self._listed:
            return
        if self._guesses is None:
            linear = _linear(self._seed) if self._options.linear else None
            self._guesses = Guesses(self._copies, linear, FRESH, self._shape.cold)
        self._guesses.learned(self._learned.guess, self._learned.settled)
        if examples:
            shown = merge([decode(each.value, self._shape, 0)[0] for each in examples]).shown
            shown = pick(shown, np.flatnonzero(~shown.unseen))
            self._guesses.shown(shown.lists, shown.offset)

    def _forget(self) -> None:
        """Drop from the log what everybody has read."""
        for topic in ("events", "examples", "outcomes"):
            self._log.expire(topic, 0, self._log.ends(topic)[0])
        for topic, read in self.rank.read.items():
            self._log.expire(topic, 0, read)


def _linear(seed: int) -> Linear:
    from stream.evaluate.linear import Linear, logistic_regression  # river takes seconds to come up

    return Linear(logistic_regression(), np.random.default_rng(seed))


def _moments(events: Sequence[Recorded], options: Options) -> dict[str, Moments]:
    """When the copies that lag behind are renewed, by name."""
    half = events[len(events) // 2].ts
    lag = f"renewed every {options.lag_ms / 60_000:g} min"
    moments = {
        FROZEN: frozen(events[len(events) // 8].ts),
        lag: every(options.lag_ms, events[0].ts + options.lag_ms),
    }
    for name, interval in options.sync_ms:
        moments[name] = frozen(half) if interval is None else every(interval, half)
    return moments
