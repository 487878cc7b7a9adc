"""The lists of the last while, in flat arrays that wrap around, waiting for labels.

Lists are numbered as they arrive. A list becomes

- ready, when its first label comes or the wait for one is over, and again with every later label;
- judged, once, some time after it was shown: with all labels by then, on what was predicted at arrival;
- mature, when its carts and purchases have had their time too;
- gone, when newer lists need its place. Its late labels find nothing any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from models.batch import CLICK, TASKS, Array, F, Lesson, Lists, Shape
from models.table import Table
from stream.messages import MAX_LIST
from stream.train.join import Labels, Shown, list_key, pick, starts
from stream.train.lessons import due, known, lesson, news

ITEMS_PER_LIST = 16
"""Room for items, per list; of lists longer than this on average, fewer fit."""

AT_ONCE = 4096
"""Lists looked at in one call: bounds the time that it takes."""

KEPT = 16_384
"""Lists that a checkpoint holds even when they are judged: late labels of older ones find nothing then."""

SHOWN_COLUMNS = ("partition", "offset", "ts", "broker_ts", "unseen")
LIST_COLUMNS = (*SHOWN_COLUMNS, "arrived", "lately", "settled", "aside")
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
    delayed
        When carts and purchases are taught, see `stream.train.lessons`.

    Attributes
    ----------
    head, tail
        Number of the next list to come, and of the oldest that is there.
    missed, immature
        Lists that left before they were judged, and before they were mature.
    """

    def __init__(self, shape: Shape, capacity: int, delayed: str = "naive") -> None:
        self.capacity, self.room = capacity, max(capacity * ITEMS_PER_LIST, MAX_LIST)
        self.head = self.tail = self.missed = self.immature = 0
        self._end = self._waited = self._judged = self._matured = self._current = 0
        self._delayed = delayed
        self._queue: dict[int, int] = {}
        self._turn = 0
        self._table = Table(capacity)
        self._number = np.full(capacity, -1, np.int64)
        self._first, self._size = np.zeros(capacity, np.int64), np.zeros(capacity, np.int64)
        flag, bits, big = (np.bool_, ()), (np.uint8, ()), (np.int64, ())
        history, tasks = (shape.history,), (len(TASKS),)
        self._lists = _empty(
            capacity,
            partition=(np.int32, ()), offset=big, ts=big, broker_ts=big, arrived=big,
            lately=(np.float32, tasks), unseen=flag, settled=bits, aside=flag,
            history=(np.uint64, history), history_category=(np.uint16, history), age=(np.float32, history),
        )  # fmt: skip
        self._items = _empty(
            self.room,
            item=(np.uint64, ()), category=(np.uint16, ()), features=(np.float32, (F,)), place=(np.int16, ()),
            labels=bits, told=bits, score=(np.float32, ()), p=(np.float32, tasks),
        )  # fmt: skip

    def __len__(self) -> int:
        return self.head - self.tail

    @property
    def judged(self) -> int:
        """Lists before this number are judged, and mature."""
        return min(self._judged, self._matured)

    @property
    def waiting(self) -> int:
        """Lists that are ready to be learned from."""
        return len(self._queue)

    def append(self, shown: Shown, guess: Guess, now: int, lately: Array | float = 0.0) -> None:
        """Take lists in, with predictions that nothing of them has influenced; `now` is stream time, ms.

        `lately` [T] has the levels in the predictions (`Trainer.lately`).

        A list counts as arrived at its broker time, or `now` where that is later: while old records
        are read, labels that follow them get their time all the same.
        """
        half = len(shown) // 2
        if half and (len(shown) > self.capacity or len(shown.lists.item) > self.room):
            for a, b in ((0, half), (half, len(shown))):
                first, last = shown.lists.start[a], shown.lists.start[b]
                own = Guess(guess.score[first:last], guess.p[first:last])
                self.append(pick(shown, np.arange(a, b)), own, now, lately)
            return
        count = len(shown)
        arrived = np.maximum.accumulate(np.maximum(shown.broker_ts, self._newest(now)))
        no = np.zeros(count, np.uint8)
        known = {name: getattr(shown, name) for name in SHOWN_COLUMNS}
        known |= {"arrived": arrived, "settled": no, "aside": no}
        known["lately"] = np.full((count, len(TASKS)), lately)
        known |= {name: getattr(shown.lists, name) for name in USER_COLUMNS}
        items = {name: getattr(shown.lists, name) for name in ITEM_COLUMNS}
        items |= {"told": np.zeros(len(guess.score), np.uint8), "score": guess.score, "p": guess.p}
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
        self._ready(numbers)
        self._turn += 1

    def mature(self, until: int) -> Array:
        """Numbers of lists that arrived at or before `until` (ms) and were not returned before."""
        numbers = self._arrived(self._matured, until)
        self._matured += len(numbers)
        if self._delayed == "wait":
            self._ready(numbers)
        return numbers

    def take(self, limit: int) -> Array:
        """Numbers of up to `limit` ready lists, longest ready first; they are ready no longer."""
        taken = [number for number, _ in zip(self._queue, range(limit), strict=False)]
        for number in taken:
            del self._queue[number]
        return np.array([n for n in taken if n >= self.tail], np.int64)

    def teach(self, numbers: Array) -> tuple[Lesson, Array]:
        """What lists that were taken teach now, and what of that which happened is `news` (bits, uint8 [N]).

        A task settles once, when the list has waited for its labels: only then does it say how probable
        they are. A list that is ready for a label's sake is there because of the label. What nobody saw
        never settles.
        """
        slot, item = numbers % self.capacity, self._items_of(numbers)
        settled, seen = self._lists["settled"][slot], ~self._lists["unseen"][slot]
        waited, mature = seen & (numbers < self._waited), seen & (numbers < self._matured)
        settles = due(self._delayed, waited, mature) & ~settled
        self._lists["settled"][slot] |= settles
        labels, size = self._items["labels"][item], self._size[slot]
        ends, over = (np.repeat(bits & CLICK > 0, size) for bits in (settles, settled | settles))
        new = news(labels, self._items["told"][item], ends, over)
        self._items["told"][item] |= new
        return lesson(self._delayed, labels, new, np.repeat(settles, size)), new

    def done(self, numbers: Array) -> Array:
        """Which lists (bool) wait for no more clicks: they have settled, or nobody saw them."""
        slot = numbers % self.capacity
        done: Array = (self._lists["settled"][slot] & CLICK > 0) | self._lists["unseen"][slot]
        return done

    def known(self, numbers: Array) -> Array:
        """Tasks (bits, uint8) whose labels lists have by now; the others' may yet come."""
        return known(self._delayed, numbers < self._matured)

    def review(self, numbers: Array) -> Lesson:
        """What lists teach that are learned from again, of what is known of them."""
        labels, size = self.labels(numbers)
        settled = np.repeat(self.column("settled", numbers) & self.known(numbers), size)
        return lesson(self._delayed, labels, labels & settled, settled)

    def replay(self, count: int, rng: np.random.Generator) -> Array:
        """Numbers of up to `count` lists that have settled, or that nobody saw; drawn uniformly.

        Those before the last `pass_over` are not among them.
        """
        return self._draw(count, rng, max(self._current, self.tail), self._waited)

    def pass_over(self, before: int) -> None:
        """Replay no lists numbered below `before` from now on."""
        self._current = max(self._current, before)

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
            **{name: self._items[name].take(item, 0) for name in ITEM_COLUMNS},
            **{name: self._lists[name].take(slot, 0) for name in USER_COLUMNS},
        )

    def labels(self, numbers: Array) -> tuple[Array, Array]:
        """Labels (bits, uint8 [N]) that lists have now, and how many items each has [B]."""
        return self._items["labels"][self._items_of(numbers)], self._size[numbers % self.capacity]

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
            "counters": [self.head, self._end, self.missed, self.immature],
            "passed": [self._waited, self._judged, self._matured, self._current],
            "queue": np.array([n for n in self._queue if n >= first], np.int64),
            "size": self._size[slot],
            "lists": {name: column[slot] for name, column in self._lists.items()},
            "items": {name: column[item] for name, column in self._items.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state` in an empty buffer; with less room now, the oldest lists are missed."""
        head, end, self.missed, self.immature = state["counters"]
        size: Array = state["size"]
        keep = min(len(size), self.capacity, int(np.searchsorted(np.cumsum(size[::-1]), self.room, "right")))
        cut, items = len(size) - keep, int(size[len(size) - keep :].sum())
        self.head = self.tail = head - keep
        self._waited, self._judged, self._matured, self._current = state["passed"]
        self._end = end - items
        of_items = {k: v[len(v) - items :] for k, v in state["items"].items()}
        self._write(size[cut:], {k: v[cut:] for k, v in state["lists"].items()}, of_items)
        self._enqueue(state["queue"][state["queue"] >= self.tail])
        self._turn += 1

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
        self._leave()

    def _leave(self) -> None:
        """Nothing before `tail` is waited for any more."""
        self.missed += max(0, self.tail - self._judged)
        self.immature += max(0, self.tail - self._matured)
        passed = self._waited, self._judged, self._matured
        self._waited, self._judged, self._matured = (max(number, self.tail) for number in passed)

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
        learned = self.done(drawn)
        numbers: Array = drawn[learned & ~self._lists["aside"][slot]][:count]
        return numbers

    def _newest(self, now: int) -> int:
        return max(now, int(self._lists["arrived"][(self.head - 1) % self.capacity])) if len(self) else now

    def _items_of(self, numbers: Array) -> Array:
        size = self._size[numbers % self.capacity]
        own = starts(size)
        first = self._first[numbers % self.capacity]
        where: Array = (np.arange(own[-1]) + np.repeat(first - own[:-1], size)) % self.room
        return where

    def _ready(self, numbers: Array) -> None:
        """To be learned from, in the order of arrival.

        What a label has made ready just now comes first, as it is; but in an earlier turn, that train is
        behind: all lists with a label would settle first, then those without, and probabilities be learned
        too high, then too low. A list that nobody saw has its only label with it, and waits for nothing.
        """
        slot = numbers % self.capacity
        ready = numbers[~self._lists["aside"][slot] & ~self._lists["unseen"][slot]]
        for number in ready.tolist():
            if self._queue.get(number, self._turn) < self._turn:
                del self._queue[number]
        self._enqueue(ready)

    def _enqueue(self, numbers: Array) -> None:
        for number in numbers.tolist():
            self._queue.setdefault(number, self._turn)


def _empty(length: int, **columns: tuple[type, tuple[int, ...]]) -> dict[str, Array]:
    return {name: np.zeros((length, *size), kind) for name, (kind, size) in columns.items()}
