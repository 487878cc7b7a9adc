"""What was predicted of shown lists, by the model, its copies and the baselines; and what came of them.

The model's predictions are those that train makes when a list arrives, before anything is learned of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from models.batch import FEATURE, TASKS, Array
from stream.errors import Fatal
from stream.evaluate.baselines import RULES, Rules
from stream.evaluate.copies import Copy
from stream.evaluate.linear import Linear
from stream.evaluate.measures import by_place
from stream.evaluate.watch import Joined, Moment
from stream.train.buffer import Guess
from stream.train.join import starts
from stream.train.session import Session

AT_ONCE = 4096
"""Lists looked at together."""


class Table(NamedTuple):
    """B lists with N items, in the order of events.

    Attributes
    ----------
    start : int64 [B + 1]
    offset : int64 [B]
        Of the event.
    labels : uint8 [N]
        Bit t: task t happened, by all acts that rank joined to the list.
    named : uint8 [N]
        The same by the acts that name the list; where none of the stream does, as `labels`.
    score : dict[str, float64 [N]]
    p : dict[str, float32 [N, T]]
        NaN where nothing was said of a task.
    """

    start: Array
    offset: Array
    labels: Array
    named: Array
    score: dict[str, Array]
    p: dict[str, Array]


class Shown:
    """Implements `watch.Audience`: what the rules make of lists, and the labels of lists."""

    def __init__(self) -> None:
        self._rules = Rules()
        self._offset: list[int] = []
        self._values: list[Array] = []
        self._labels: list[Joined] = []

    def shown(self, offset: int, user: int, slate: int, items: list[int]) -> None:
        """Note what the rules say."""
        self._offset.append(offset)
        self._values.append(self._rules.values(user, items))

    def wants(self, user: int, item: int) -> bool:
        """Nothing is asked."""
        return False

    def ask(self, user: int, item: int, moment: Moment) -> None:
        """Nothing is asked."""

    def touched(self, user: int, item: int) -> None:
        """Let the rules count."""
        self._rules.touched(user, item)

    def joined(self, labels: Joined) -> None:
        """Keep labels."""
        self._labels.append(labels)

    def values(self) -> tuple[Array, Array, Array]:
        """Where lists begin (int64 [B + 1]), their offsets [B], the values of all their items [rules, N]."""
        start = starts(np.array([v.shape[1] for v in self._values], np.int64))
        return (
            start,
            np.array(self._offset, np.int64),
            np.concatenate([np.zeros((len(RULES), 0)), *self._values], axis=1),
        )

    def labels(self, start: Array) -> tuple[Array, Array]:
        """`Table.labels` and `Table.named`."""
        bits, named = np.zeros(start[-1], np.uint8), np.zeros(start[-1], np.uint8)
        for each in self._labels:
            at = start[np.searchsorted(self._offset, each.offset)] + each.place
            bit = np.left_shift(1, each.task).astype(np.uint8)
            np.bitwise_or.at(bits, at, bit)
            np.bitwise_or.at(named, at[each.named], bit[each.named])
        return bits, named if named.any() else bits


class Guesses:
    """What the model, its copies and the linear model say of each list when it arrives at train.

    Parameters
    ----------
    session
        Of train.
    copies
        By name.
    linear
        None: it is left out.
    fresh
        What the model itself is called.
    """

    def __init__(
        self, session: Session, copies: Mapping[str, Copy], linear: Linear | None, fresh: str
    ) -> None:
        self._session, self._copies, self._linear, self._fresh = session, copies, linear, fresh
        self._next = 0
        self._unlearned: deque[int] = deque()
        self._guesses: dict[str, list[Guess]] = {}
        self._near: list[Array] = [np.zeros(0, np.float32)]

    def look(self, settled: int) -> None:
        """After a turn of train: note what was said of new lists.

        Parameters
        ----------
        settled
            Lists older than this (ms) have waited for their labels: the linear model learns them.

        Raises
        ------
        Fatal
            When new lists have left the buffer of train already.
        """
        buffer = self._session.buffer
        if self._next < buffer.tail:
            raise Fatal("a turn has more lists than train keeps: take a smaller --turn")
        while self._next < buffer.head:
            numbers = np.arange(self._next, min(buffer.head, self._next + AT_ONCE))
            self._next += len(numbers)
            seen = numbers[~buffer.column("unseen", numbers)]
            if len(seen):
                self._note(seen)
                self._unlearned.extend(seen.tolist() if self._linear else ())
        if self._linear is not None:
            self._learn(self._linear, settled)

    def table(self, shown: Shown) -> Table:
        """Everything, with the labels that `shown` has by now."""
        start, offset, values = shown.values()
        labels, named = shown.labels(start)
        score = {name: by_place(start, values[k]) for k, name in enumerate(RULES)}
        score["co-visitation"] = by_place(start, np.concatenate(self._near))
        joined = {
            name: [np.concatenate(c) for c in zip(*g, strict=True)] for name, g in self._guesses.items()
        }
        score |= {name: columns[0].astype(np.float64) for name, columns in joined.items()}
        p = {name: columns[1] for name, columns in joined.items()}
        return Table(start, offset, labels, named, score, p)

    def _learn(self, linear: Linear, settled: int) -> None:
        buffer = self._session.buffer
        while self._unlearned:
            number = np.array([self._unlearned[0]])
            if number[0] >= buffer.tail:
                if int(buffer.column("broker_ts", number)[0]) > settled:
                    break
                lists = buffer.gather(number)
                linear.learn(lists.features, (lists.labels & 1).astype(bool))
            self._unlearned.popleft()

    def _note(self, numbers: Array) -> None:
        learner, buffer = self._session.learner, self._session.buffer
        lists = buffer.gather(numbers)
        fresh = buffer.guesses(numbers)
        self._near.append(lists.features[:, FEATURE["near_sum"]])
        said, offset = {self._fresh: fresh}, buffer.column("offset", numbers)
        for name, copy in self._copies.items():
            served = None if copy.slot is None else copy.slot.served
            if served is None:
                said[name] = fresh
            else:
                said[name] = Guess(*learner.predict_with(served, copy.given(lists, offset)))
        if self._linear is not None:
            p = np.full((len(lists.item), len(TASKS)), np.nan, np.float32)
            p[:, 0] = score = self._linear.predict(lists.features)
            said["river linear"] = Guess(score, p)
        for name, guess in said.items():
            self._guesses.setdefault(name, []).append(guess)
