"""Train as it always is, on a log of its own, one turn after the other."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import traceback
from pathlib import Path

import numpy as np

from models.batch import Array
from stream.checkpoint import Store
from stream.errors import Fatal
from stream.evaluate.apart import TICK_S, TICKS, Learned
from stream.log import Output
from stream.memory import MemoryLog
from stream.runner import Runner
from stream.settings import Settings
from stream.train.buffer import Buffer
from stream.train.role import Train


class Learning:
    """The role, and what it said of lists.

    Parameters
    ----------
    settings
        The whole tree, as `run.still` leaves it.
    directory
        Of the store.
    now
        Event time, s.
    """

    def __init__(self, settings: Settings, directory: Path, now: float) -> None:
        self._now, self._clock = now, float(int(now))
        self._wait_ms = int(settings.train.click_wait_s * 1000)
        self._counts = settings.kafka.counts()
        self._log, store = MemoryLog(self._counts, lambda: self._now), Store(directory)
        self.role = Train(settings, store)
        self._runner = Runner(self.role, self._log, store, settings, lambda: self._clock)
        self._runner.start(patience=0.0)
        self._runner.once(0.0)
        self._next, self._waiting = 0, np.zeros(0, np.int64)

    def turn(self, now: float, examples: list[Output]) -> Learned:
        """Take in what rank published up to `now` (event time, s), and learn for a while.

        Raises
        ------
        Fatal
            When new lists have left the buffer of train already.
        """
        self._now = now
        self._log.append(examples)
        for _ in range(TICKS):
            self._clock += TICK_S
            self._runner.once(0.0)
        return self.learned()

    def learned(self) -> Learned:
        """What has come of it since the last call."""
        outputs = [o for topic in self._counts if topic != self.role.input for o in self._log.outputs(topic)]
        for topic in self._counts:
            for partition, end in self._log.ends(topic).items():
                self._log.expire(topic, partition, end)
        session = self.role.session
        assert session is not None
        new = self._seen(session.buffer)
        return Learned(outputs, session.buffer.guesses(new), self._labels(session.buffer))

    def _seen(self, buffer: Buffer) -> Array:
        """Numbers of new lists that somebody has seen."""
        if self._next < buffer.tail:
            raise Fatal("a turn has more lists than train keeps: take a smaller --turn")
        new = np.arange(self._next, buffer.head)
        self._next = buffer.head
        new = new[~buffer.column("unseen", new)]
        self._waiting = np.concatenate([self._waiting, new])
        return new

    def _labels(self, buffer: Buffer) -> list[Array | None]:
        """Of lists that have waited for their clicks."""
        gone = int(np.searchsorted(self._waiting, buffer.tail))
        times = buffer.column("broker_ts", self._waiting[gone:])
        waited = gone + int(np.searchsorted(times, 1000 * self._now - self._wait_ms, "right"))
        settled, self._waiting = self._waiting[gone:waited], self._waiting[waited:]
        lists = buffer.gather(settled)
        return [None] * gone + np.split(lists.labels, lists.start[1:-1])[: len(settled)]


def main() -> None:
    """Learn what comes on stdin, answer on stdout, until the other end is closed; see `apart.Apart`."""
    logging.getLogger("stream.train").setLevel(logging.CRITICAL)  # what it says is counted, and told
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anybody prints is no answer
    try:
        learning = Learning(*pickle.load(asked))
        answer = learning.learned()
        while True:
            pickle.dump(answer, answers)
            answers.flush()
            answer = learning.turn(*pickle.load(asked))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return  # nobody waits for an answer any more
    except Exception as error:
        error.add_note(traceback.format_exc())
        pickle.dump(error, answers)


if __name__ == "__main__":
    main()
