"""The lists of the last while, in flat arrays that wrap around, waiting for labels.

Lists are numbered as they arrive. A list becomes

- ready, when its first label comes or the wait for one is over, and again with every later label;
- judged, once, some time after it was shown: with all labels by then, on what was predicted at arrival;
- gone, when newer lists need its place. Its late labels find nothing any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from models.batch import TASKS, Array, F, Lists, Shape
from models.table import Table
from stream.messages import MAX_LIST
from stream.train.join import Labels, Shown, pick, starts

ITEMS_PER_LIST = 16
"""Room for items, per list; of lists longer than this on average, fewer fit."""

AT_ONCE = 4096
"""Lists looked at in one call: bounds the time that it takes."""

KEPT = 16_384
"""Lists that a checkpoint holds even when they are judged: late labels of older ones find nothing then."""

SHOWN_COLUMNS = ("partition", "offset", "ts", "broker_ts", "unseen")
LIST_COLUMNS = (*SHOWN_COLUMNS, "arrived", "settled", "aside")
USER_COLUMNS = ("history", "history_category", "age")
ITEM_COLUMNS = ("item", "category", "features", "place", "labels")


class Guess(NamedTuple):
    """Predictions made at arrival: score [N] and probability of each task [N, T]."""

    score: Array
    p: Array


class Joined(NamedTuple):
    """What became of labels [M]: the number of the list (-1: not there), and whether the label was news."""

    number: Array
    new: Array


class Buffer:
    """A ring of lists with features, labels and predictions.

    Parameters
    ----------
    shape
        Sizes.
    capacity
        Lists kept; the oldest leave first.

    Attributes
    ----------
    head, tail
        Number of the next list to come, and of the oldest that is there.
    missed
        Lists that left before they were judged.
    """

    def __init__(self, shape: Shape, capacity: int) -> None:
        self.capacity, self.room = capacity, max(capacity * ITEMS_PER_LIST, MAX_LIST)
        self.head = self.tail = self.missed = 0
        self._end = self._waited = self._judged = 0
        self._queue: dict[int, None] = {}
        self._table = Table(capacity)
        self._number = np.full(capacity, -1, np.int64)
        self._first, self._size = np.zeros(capacity, np.int64), np.zeros(capacity, np.int64)
        flag, big = (np.bool_, ()), (np.int64, ())
        history = (shape.history,)
        self._lists = _empty(
            capacity,
            partition=(np.int32, ()), offset=big, ts=big, broker_ts=big, arrived=big,
            unseen=flag, settled=flag, aside=flag,
            history=(np.uint64, history), history_category=(np.uint16, history), age=(np.float32, history),
        )  # fmt: skip
        tasks = (len(TASKS),)
        self._items = _empty(
            self.room,
            item=(np.uint64, ()), category=(np.uint16, ()), features=(np.float32, (F,)), place=(np.int16, ()),
            labels=(np.uint8, ()), score=(np.float32, ()), p=(np.float32, tasks),
        )  # fmt: skip

    def __len__(self) -> int:
        return self.head - self.tail

    @property
    def waiting(self) -> int:
        """Lists that are ready to be learned from."""
        return len(self._queue)

    def append(self, shown: Shown, guess: Guess, now: int) -> None:
        """Take lists in, with predictions that nothing of them has influenced; `now` is stream time, ms.

        A list counts as arrived at its broker time, or `now` where that is later: while old records
        are read, labels that follow them get their time all the same.
        """
        half = len(shown) // 2
        if half and (len(shown) > self.capacity or len(shown.lists.item) > self.room):
            for a, b in ((0, half), (half, len(shown))):
                first, last = shown.lists.start[a], shown.lists.start[b]
                own = Guess(guess.score[first:last], guess.p[first:last])
                self.append(pick(shown, np.arange(a, b)), own, now)
            return
        count = len(shown)
        arrived = np.maximum.accumulate(np.maximum(shown.broker_ts, self._newest(now)))
        no = np.zeros(count, np.bool_)
        known = {name: getattr(shown, name) for name in SHOWN_COLUMNS}
        # a list that nobody saw has its only label with it: there is nothing to wait for
        known |= {"arrived": arrived, "settled": shown.unseen, "aside": no}
        known |= {name: getattr(shown.lists, name) for name in USER_COLUMNS}
        items = {name: getattr(shown.lists, name) for name in ITEM_COLUMNS}
        items |= {"score": guess.score, "p": guess.p}
        self._write(np.diff(shown.lists.start), known, items)

    def label(self, labels: Labels) -> Joined:
        """Set label bits; lists that got a new one become ready, unless they are set aside."""
        slot = self._table.lookup(list_key(labels.partition, labels.offset))
        there = (slot >= 0) & (self._number[slot] >= self.tail) & (labels.position < self._size[slot])
        number = np.where(there, self._number[slot], -1)
        where = ((self._first[slot] + labels.position) % self.room)[there]
        task = labels.task[there]
        bit = np.left_shift(1, task).astype(np.uint8)
        once = np.zeros(len(where), np.bool_)
        once[np.unique(where * len(TASKS) + task, return_index=True)[1]] = True
        new = np.zeros(len(number), np.bool_)
        new[there] = once & (self._items["labels"][where] & bit == 0)
        np.bitwise_or.at(self._items["labels"], where, bit)
        self._enqueue(number[new & ~self._lists["aside"][slot]])
        return Joined(number, new)

    def wait(self, until: int) -> None:
        """Lists that arrived at or before `until` (ms) become ready, whatever was learned of them."""
        numbers = self._arrived(self._waited, until)
        self._waited += len(numbers)
        slot = numbers % self.capacity
        self._enqueue(numbers[~self._lists["aside"][slot] & ~self._lists["unseen"][slot]])

    def take(self, limit: int) -> tuple[Array, Array]:
        """Up to `limit` ready lists, longest ready first: their numbers, and which of them settle now.

        A list settles once, when it has waited for its labels: only then does it say how probable a
        click is. One that is ready for a label's sake is there because of the label.
        """
        taken = [number for number, _ in zip(self._queue, range(limit), strict=False)]
        for number in taken:
            del self._queue[number]
        numbers = np.array([n for n in taken if n >= self.tail], np.int64)
        slot = numbers % self.capacity
        settles: Array = (numbers < self._waited) & ~self._lists["settled"][slot]
        self._lists["settled"][slot] |= settles
        return numbers, settles

    def replay(self, count: int, rng: np.random.Generator) -> Array:
        """Numbers of up to `count` settled lists, drawn uniformly."""
        return self._draw(count, rng, self.tail, self._waited)

    def trusted(self, count: int, rng: np.random.Generator, since: int) -> Array:
        """Numbers from `since` on of up to `count` settled and judged lists, drawn uniformly."""
        return self._draw(count, rng, max(since, self.tail), self._judged)

    def judge(self, until: int) -> Array:
        """Numbers of lists that arrived at or before `until` (ms) and were not returned before."""
        numbers = self._arrived(self._judged, until)
        self._judged += len(numbers)
        return numbers

    def newest(self, count: int, since: int) -> Array:
        """Numbers from `since` on of the `count` lists judged last that are not set aside."""
        numbers = np.arange(max(since, self.tail, self._judged - AT_ONCE), self._judged)
        kept: Array = numbers[~self._lists["aside"][numbers % self.capacity]][-count:]
        return kept

    def set_aside(self, numbers: Array) -> None:
        """Never learn from these again."""
        self._lists["aside"][numbers % self.capacity] = True
        for number in numbers.tolist():
            self._queue.pop(number, None)

    def gather(self, numbers: Array) -> Lists:
        """Lists by number, with the labels that they have now."""
        slot, item = numbers % self.capacity, self._items_of(numbers)
        return Lists(
            start=starts(self._size[slot]),
            **{name: self._items[name][item] for name in ITEM_COLUMNS},
            **{name: self._lists[name][slot] for name in USER_COLUMNS},
        )

    def guesses(self, numbers: Array) -> Guess:
        """What the model predicted when these lists arrived."""
        item = self._items_of(numbers)
        return Guess(self._items["score"][item], self._items["p"][item])

    def column(self, name: str, numbers: Array) -> Array:
        """One of `LIST_COLUMNS` of some lists."""
        values: Array = self._lists[name][numbers % self.capacity]
        return values

    def state(self) -> dict[str, Any]:
        """Arrays for a checkpoint: every list not judged yet, and the newest `KEPT` others."""
        first = max(self.tail, min(self._judged, self._waited, self.head - KEPT))
        numbers = np.arange(first, self.head)
        slot, item = numbers % self.capacity, self._items_of(numbers)
        return {
            "counters": [self.head, self._end, self._waited, self._judged, self.missed],
            "queue": np.array([n for n in self._queue if n >= first], np.int64),
            "size": self._size[slot],
            "lists": {name: column[slot] for name, column in self._lists.items()},
            "items": {name: column[item] for name, column in self._items.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state` in an empty buffer; with less room now, the oldest lists are missed."""
        head, end, waited, judged, missed = state["counters"]
        size: Array = state["size"]
        keep = min(len(size), self.capacity, int(np.searchsorted(np.cumsum(size[::-1]), self.room, "right")))
        cut, items = len(size) - keep, int(size[len(size) - keep :].sum())
        self.head = self.tail = self._waited = self._judged = head - keep
        self._end, self.missed = end - items, missed
        of_items = {k: v[len(v) - items :] for k, v in state["items"].items()}
        self._write(size[cut:], {k: v[cut:] for k, v in state["lists"].items()}, of_items)
        self._waited, self._judged = max(waited, self.tail), max(judged, self.tail)
        self.missed += self._judged - judged
        self._enqueue(state["queue"][state["queue"] >= self.tail])

    def _write(self, size: Array, lists: Mapping[str, Array], items: Mapping[str, Array]) -> None:
        """Put lists at the head."""
        start = starts(size)
        self._make_room(len(size), int(start[-1]))
        numbers = np.arange(self.head, self.head + len(size))
        slot, item = numbers % self.capacity, (self._end + np.arange(start[-1])) % self.room
        self._number[slot], self._size[slot], self._first[slot] = numbers, size, self._end + start[:-1]
        for name, column in lists.items():
            self._lists[name][slot] = column
        for name, column in items.items():
            self._items[name][item] = column
        self._table.put(list_key(lists["partition"], lists["offset"]), slot)
        self.head, self._end = self.head + len(size), self._end + int(start[-1])

    def _make_room(self, lists: int, items: int) -> None:
        self.tail = max(self.tail, self.head + lists - self.capacity)
        while (
            self.tail < self.head and self._first[self.tail % self.capacity] < self._end + items - self.room
        ):
            self.tail += 1
        self.missed += max(0, self.tail - self._judged)
        self._waited, self._judged = max(self._waited, self.tail), max(self._judged, self.tail)

    def _arrived(self, first: int, until: int) -> Array:
        """Numbers from `first` on, at most `AT_ONCE`, of lists that arrived at or before `until`."""
        numbers = np.arange(first, min(first + AT_ONCE, self.head))
        times = self._lists["arrived"][numbers % self.capacity]
        return numbers[: int(np.searchsorted(times, until, "right"))]

    def _draw(self, count: int, rng: np.random.Generator, first: int, end: int) -> Array:
        if end <= first:
            return np.zeros(0, np.int64)
        drawn = rng.integers(first, end, 2 * count)  # some have not settled yet
        slot = drawn % self.capacity
        numbers: Array = drawn[self._lists["settled"][slot] & ~self._lists["aside"][slot]][:count]
        return numbers

    def _newest(self, now: int) -> int:
        return max(now, int(self._lists["arrived"][(self.head - 1) % self.capacity])) if len(self) else now

    def _items_of(self, numbers: Array) -> Array:
        size = self._size[numbers % self.capacity]
        own = starts(size)
        first = self._first[numbers % self.capacity]
        where: Array = (np.arange(own[-1]) + np.repeat(first - own[:-1], size)) % self.room
        return where

    def _enqueue(self, numbers: Array) -> None:
        self._queue |= dict.fromkeys(numbers.tolist())


def list_key(partition: Array, offset: Array) -> Array:
    """One 64-bit key per list, well spread: the finaliser of splitmix64 (Steele et al., OOPSLA 2014).

    >>> len(set(list_key(np.array([0, 0, 1]), np.array([0, 1, 0])).tolist()))
    3
    """
    key = (partition.astype(np.uint64) << np.uint64(48)) + offset.astype(np.uint64)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    spread: Array = np.maximum(key ^ (key >> np.uint64(31)), np.uint64(2))
    return spread


def _empty(length: int, **columns: tuple[type, tuple[int, ...]]) -> dict[str, Array]:
    return {name: np.zeros((length, *size), kind) for name, (kind, size) in columns.items()}
