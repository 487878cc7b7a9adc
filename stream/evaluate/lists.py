"""What was predicted of shown lists, by the model, its copies and the baselines; and what came of them.

The model's predictions are those that train makes when a list arrives, before anything is learned of it. The
others are asked when rank sends it off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from models.batch import CLICK, FEATURE, TASKS, Array, Lists
from models.lagged import said_by
from stream.evaluate.baselines import RULES, Rules
from stream.evaluate.copies import Copy
from stream.evaluate.measures import by_place
from stream.evaluate.watch import Joined, Moment
from stream.train.buffer import Guess
from stream.train.join import starts

if TYPE_CHECKING:
    from stream.evaluate.linear import Linear  # river takes seconds to come up


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
    """What the model, its copies and the linear model say of each list, before anything is learned of it.

    Parameters
    ----------
    copies
        By name.
    linear
        None: it is left out.
    fresh
        What the model itself is called.
    cold
        Rows that items without one share.
    """

    def __init__(self, copies: Mapping[str, Copy], linear: Linear | None, fresh: str, cold: int) -> None:
        self._copies, self._linear, self._fresh, self._cold = copies, linear, fresh, cold
        self._waiting: deque[dict[str, Guess | None]] = deque()
        self._unlearned: deque[Array] = deque()
        self._guesses: dict[str, list[Guess]] = {}
        self._near: list[Array] = [np.zeros(0, np.float32)]

    def shown(self, lists: Lists, offset: Array) -> None:
        """Lists on their way to train: note what all others say of them."""
        if not len(lists):
            return
        said: dict[str, Guess | None] = dict.fromkeys(self._copies)  # None: what the model says
        for name, copy in self._copies.items():
            if copy.slot is not None and copy.slot.served is not None:
                given = copy.given(lists, offset)
                said[name] = Guess(*said_by(copy.slot.served, given, self._cold))
        if self._linear is not None:
            p = np.full((len(lists.item), len(TASKS)), np.nan, np.float32)
            p[:, 0] = score = self._linear.predict(lists.features)
            said["river linear"] = Guess(score, p)
            self._unlearned.extend(np.split(lists.features, lists.start[1:-1]))
        self._near.append(lists.features[:, FEATURE["near_sum"]])
        self._waiting.append(said)

    def learned(self, guess: Guess, settled: Sequence[Array | None]) -> None:
        """What the model said of the lists `shown` longest ago; the linear model learns what has settled."""
        if len(guess.score):
            for name, own in ({self._fresh: guess} | self._waiting.popleft()).items():
                self._guesses.setdefault(name, []).append(guess if own is None else own)
        if self._linear is not None:
            for labels in settled:
                features = self._unlearned.popleft()
                if labels is not None:
                    self._linear.learn(features, labels & CLICK > 0)

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
