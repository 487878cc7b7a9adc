"""What older models say of a sample of the lists, so that it shows what freshness buys.

The newest model predicts every list; these predict those of one user in 20, or as set. ``1m`` and ``10m`` are
the model as it was that long ago in stream time (up to a quarter longer), ``frozen`` is that of the first
minute.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from models.batch import Array
from models.lagged import Lagged, Older
from models.learner import Learner
from stream.train.buffer import Guess
from stream.train.join import Shown, select, starts

LAGS = {"1m": 60_000, "10m": 600_000}
"""Lagged models by the name they have in `quality`, and how old they are at least, ms."""

FROZEN = "frozen"

logger = logging.getLogger(__name__)


class Said(NamedTuple):
    """What one model said: numbers and sizes of lists [B], and the guess for their items, list after list."""

    number: Array
    size: Array
    guess: Guess


class Shadows:
    """Lagged models, and what they and the frozen one said of lists that are not judged yet.

    Parameters
    ----------
    learner
        Has the newest model.
    lags
        As `LAGS`.
    one_in
        Of so many users one is predicted; 0: nobody is.
    """

    def __init__(self, learner: Learner, lags: Mapping[str, int], one_in: int) -> None:
        self._learner, self._one_in = learner, one_in
        self.lagged = {name: Lagged(learner.shape, lag) for name, lag in lags.items()}
        self._said: dict[str, dict[int, Guess]] = {name: {} for name in (*lags, FROZEN)}

    def turn(self, now: int) -> None:
        """The newest model is good as it is at `now` (stream time, ms; 0: unknown); lagged ones follow."""
        if not now or not self._one_in:
            return
        if due := [lagged for lagged in self.lagged.values() if lagged.due(now)]:
            weights = self._learner.weights()
            for lagged in due:
                lagged.keep(weights, now)
        for lagged in self.lagged.values():
            lagged.advance(self._learner.graph(), now)

    def predict(self, shown: Shown, first: int, frozen: Older | None) -> None:
        """Let the older models predict lists that have just come, numbered from `first`."""
        if not self._one_in:
            return
        sampled = np.flatnonzero(shown.user % np.uint64(self._one_in) == 0)
        if not len(sampled):
            return
        lists = select(shown.lists, sampled)
        models = {name: lagged.model for name, lagged in self.lagged.items()} | {FROZEN: frozen}
        for name, model in models.items():
            if model is not None:
                guess = Guess(*self._learner.predict_with(model, lists))
                self._hear(name, Said(first + sampled, np.diff(lists.start), guess))

    def said(self, numbers: Array) -> dict[str, Said]:
        """What was said of those of these lists that a model predicted, by model."""
        found = {}
        for name, said in self._said.items():
            if own := [n for n in numbers.tolist() if n in said]:
                found[name] = _together({n: said[n] for n in own})
        return found

    def forget(self, before: int) -> None:
        """Nobody will ask for lists numbered below `before`."""
        self._said = {
            name: {n: guess for n, guess in said.items() if n >= before} for name, said in self._said.items()
        }

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint: what was said. Lagged models are not in it: they begin anew."""
        return {
            name: [whole.number, whole.size, *whole.guess]
            for name, said in self._said.items()
            if said
            for whole in [_together(said)]
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        for name, (number, size, score, p) in state.items():
            if name in self._said:
                self._hear(name, Said(number, size, Guess(score, p)))
        logger.info("lagged models begin anew: %s are there again when that time has passed", [*self.lagged])

    def _hear(self, name: str, said: Said) -> None:
        edges = starts(said.size)
        for n, (a, b) in zip(said.number.tolist(), pairwise(edges.tolist()), strict=True):
            self._said[name][n] = Guess(said.guess.score[a:b], said.guess.p[a:b])


def _together(said: Mapping[int, Guess]) -> Said:
    """At least one."""
    score, p = (np.concatenate(column) for column in zip(*said.values(), strict=True))
    size = np.array([len(guess.score) for guess in said.values()], np.int64)
    return Said(np.array(list(said), np.int64), size, Guess(score, p))
