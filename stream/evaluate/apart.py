"""Train beside everything else: in a process of its own, or here. Needs no torch itself."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING, NamedTuple, Protocol

from stream.errors import Fatal
from stream.log import Output
from stream.modules import command

if TYPE_CHECKING:  # whoever starts the process has none of these yet
    from models.batch import Array
    from stream.evaluate.learning import Learning
    from stream.settings import Settings
    from stream.train.buffer import Guess

TICKS = 8
"""Turns of train's loop in a turn: what it gets done in a second or so."""
TICK_S = 2**-10
"""Train's time from one to the next; short, for idle time counts as the stream's."""


class Learned(NamedTuple):
    """What came of a turn.

    Attributes
    ----------
    outputs
        All that train published.
    guess
        Of the lists that came, and somebody had seen, what was predicted before anything was learned of them.
    settled
        Labels (uint8 [n]) of each list that has waited for them now; None where it was kept no longer.
    """

    outputs: list[Output]
    guess: Guess
    settled: list[Array | None]


Answer = Callable[[], Learned]
"""Waits until a turn has been learned."""


class Turns(Protocol):
    """Train, asked one turn at a time; each is to be answered before the next one is asked."""

    def begin(self, settings: Settings, directory: Path, now: float) -> Answer:
        """Start, with this directory for the store; `now` in seconds of event time."""
        ...

    def turn(self, now: float, examples: list[Output]) -> Answer:
        """Learn from what rank has published."""
        ...


class Here:
    """Train in this process: a turn has been learned when `turn` returns."""

    learning: Learning

    def begin(self, settings: Settings, directory: Path, now: float) -> Answer:
        """Start."""
        from stream.evaluate.learning import Learning

        self.learning = Learning(settings, directory, now)
        return self.learning.learned

    def turn(self, now: float, examples: list[Output]) -> Answer:
        """Learn."""
        learned = self.learning.turn(now, examples)
        return lambda: learned


class Apart:
    """Train in a process of its own, which lives as long as the context; it takes seconds to come up.

    What is raised there is raised by the answer here.
    """

    def __init__(self) -> None:
        self.process = Popen(command("stream.evaluate.learning"), stdin=PIPE, stdout=PIPE)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._asked, self._answered = self.process.stdin, self.process.stdout

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()  # by itself it would end as well, but take a while to tidy up
        with suppress(OSError):
            self.process.communicate()

    def begin(self, settings: Settings, directory: Path, now: float) -> Answer:
        """Start."""
        return self._ask(settings, directory, now)

    def turn(self, now: float, examples: list[Output]) -> Answer:
        """Let it learn."""
        return self._ask(now, examples)

    def _ask(self, *given: object) -> Answer:
        with suppress(OSError):  # if it has died, the answer says so
            pickle.dump(given, self._asked)
            self._asked.flush()
        return self._answer

    def _answer(self) -> Learned:
        try:
            answer: Learned | Exception = pickle.load(self._answered)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise Fatal(f"the process that learns has died, exit code {self.process.wait()}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer
