"""`Examples` as columns: lists, the labels that name them, and what visitors did.

A message is taken whole or refused whole: columns of different lengths, or numbers that are not
finite, mean that whoever wrote it is broken, and then none of it can be trusted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from models.batch import CONTEXTS, TASKS, Array, F, Lists, Shape
from stream.errors import Poison
from stream.ids import RESERVED
from stream.messages import LATEST_TS, MAX_LIST, OURS, UNSEEN, Examples, decode_examples

COLUMNS: dict[str, tuple[type, str]] = {
    "list_offset": (np.int64, "B"),
    "list_ts": (np.int64, "B"),
    "list_broker_ts": (np.int64, "B"),
    "list_user": (np.uint64, "B"),
    "list_arm": (np.uint8, "B"),
    "list_size": (np.int32, "B"),
    "list_own": (np.uint8, "B"),
    "list_history": (np.uint64, "BH"),
    "list_history_category": (np.uint16, "BH"),
    "list_age": (np.float32, "BH"),
    "list_context": (np.uint64, "BX"),
    "item": (np.uint64, "N"),
    "item_category": (np.uint16, "N"),
    "features": (np.float32, "NF"),
    "label_list": (np.int64, "M"),
    "label_position": (np.uint16, "M"),
    "label_task": (np.uint8, "M"),
    "label_ts": (np.int64, "M"),
    "label_broker_ts": (np.int64, "M"),
    "act_offset": (np.int64, "K"),
    "act_ts": (np.int64, "K"),
    "act_item": (np.uint64, "K"),
    "act_category": (np.uint16, "K"),
    "act_task": (np.uint8, "K"),
    "act_listed": (np.uint8, "K"),
    "act_history": (np.uint64, "KH"),
    "act_age": (np.float32, "KH"),
    "act_context": (np.uint64, "KX"),
}
"""Type and shape of each column of `Examples`; letters as in its docstring."""

LARGEST = 1e12
"""Most that a feature or an age (s) can be: far beyond what is measured, far below where sums overflow."""


class Shown(NamedTuple):
    """Lists with what is known of them beside the model's input; columns [B], `context` [B, X].

    `partition` and `offset` name the list: its event. `ts` and `broker_ts` in ms. What nobody has seen
    (`unseen`, bool) tells an order, and nothing of how often anything is clicked.
    """

    lists: Lists
    partition: Array
    offset: Array
    ts: Array
    broker_ts: Array
    user: Array
    unseen: Array
    context: Array

    def __len__(self) -> int:
        return len(self.offset)


class Labels(NamedTuple):
    """Columns [M]: item `position` (from 0) of the list at `offset` got `task`; `ts`, `broker_ts` in ms."""

    partition: Array
    offset: Array
    position: Array
    task: Array
    ts: Array
    broker_ts: Array


class Acts(NamedTuple):
    """Columns [K]: clicks, carts and purchases, the user's history just before [K, H], context [K, X]."""

    item: Array
    category: Array
    task: Array
    listed: Array
    ts: Array
    history: Array
    age: Array
    context: Array


class Batch(NamedTuple):
    """What one or more messages brought."""

    shown: Shown
    labels: Labels
    acts: Acts
    names: dict[int, str]


def decode(value: bytes | None, shape: Shape, partition: int, passed: int = -1) -> tuple[Batch, int]:
    """Columns of one message, without the lists and acts of events at or before `passed`.

    After a crash of rank the last moment is published again, cut into messages elsewhere; labels
    need no such care, since a label that is there already changes nothing.

    Parameters
    ----------
    value
        One value of topic `examples`.
    shape
        What the model and rank agree on.
    partition
        Where it was read from.
    passed
        Offset of the newest event of this partition that has been taken in.

    Returns
    -------
    batch, last
        The columns, and the newest event that they include.

    Raises
    ------
    Poison
        With the reason, when it cannot be what rank writes.
    """
    message = decode_examples(value)
    if message.schema != shape.schema:
        raise Poison(
            f"schema {message.schema:08x} is not ours, {shape.schema:08x}: start rank and train alike"
        )
    if message.partition != partition:
        raise Poison(f"examples of partition {message.partition} in partition {partition}")
    columns = _columns(message, shape.history)
    _check(columns)
    if not all(RESERVED <= code < 1 << 64 for code in message.names):
        raise Poison("names: not all are of 64-bit ids")
    lists = _lists(columns, shape)
    shown = Shown(
        lists,
        np.full(len(lists), partition, np.int32),
        columns["list_offset"],
        columns["list_ts"],
        columns["list_broker_ts"],
        columns["list_user"],
        columns["list_own"] == UNSEEN,
        columns["list_context"],
    )
    labels = Labels(
        np.full(len(columns["label_list"]), partition, np.int32),
        *(columns[f"label_{name}"] for name in ("list", "position", "task", "ts", "broker_ts")),
    )
    acts = Acts(
        *(
            columns[f"act_{name}"]
            for name in ("item", "category", "task", "listed", "ts", "history", "age", "context")
        )
    )
    if message.first <= passed:
        shown = pick(shown, np.flatnonzero(shown.offset > passed))
        acts = Acts(*(column[columns["act_offset"] > passed] for column in acts))
    return Batch(shown, labels, acts, message.names), max(message.last, passed)


def _columns(message: Examples, history: int) -> dict[str, Array]:
    widths = {"H": history, "F": F, "X": CONTEXTS}
    sizes: dict[str, int] = {}
    columns: dict[str, Array] = {}
    for name, (dtype, letters) in COLUMNS.items():
        raw: bytes = getattr(message, name)
        width = widths.get(letters[1:], 1)
        if len(raw) % (np.dtype(dtype).itemsize * width):
            raise Poison(f"{name}: {len(raw)} bytes are no whole number of rows")
        column: Array = np.frombuffer(raw, np.dtype(dtype).newbyteorder("<"))
        columns[name] = column.reshape(-1, width) if letters[1:] else column
        if sizes.setdefault(letters[0], len(columns[name])) != len(columns[name]):
            raise Poison(f"{name}: {len(columns[name])} rows, not {sizes[letters[0]]} as the columns before")
    return columns


def _check(columns: dict[str, Array]) -> None:
    size = columns["list_size"]
    if ((size < 1) | (size > MAX_LIST)).any():
        raise Poison(f"list_size: not within 1 to {MAX_LIST}")
    if int(size.sum(dtype=np.int64)) != len(columns["item"]):
        raise Poison(f"item: {len(columns['item'])} rows, but lists of {int(size.sum())} together")
    if (columns["list_own"] > UNSEEN).any():
        raise Poison(f"list_own: not within 0 to {UNSEEN}")
    for name in ("label_task", "act_task"):
        if (columns[name] >= len(TASKS)).any():
            raise Poison(f"{name}: not within 0 to {len(TASKS) - 1}")
    for name in ("item", "act_item"):
        if (columns[name] < RESERVED).any():
            raise Poison(f"{name}: ids below {RESERVED} are nobody's")
    for name in ("list_ts", "list_broker_ts", "label_ts", "label_broker_ts", "act_ts"):
        if ((columns[name] < 0) | (columns[name] > LATEST_TS)).any():
            raise Poison(f"{name}: not within 1970 to 2100")
    for name in ("features", "list_age", "act_age"):
        if not (np.abs(columns[name]) <= LARGEST).all():  # NaN is not
            raise Poison(f"{name}: not all are finite, and within {LARGEST:g} of zero")


def _lists(columns: dict[str, Array], shape: Shape) -> Lists:
    size = columns["list_size"]
    start = starts(size)
    place = np.arange(1, len(columns["item"]) + 1) - np.repeat(start[:-1], size)
    return Lists(
        start=start,
        item=columns["item"],
        category=columns["item_category"] % shape.categories,
        features=columns["features"],
        place=(place * np.repeat(columns["list_own"] == OURS, size)).astype(np.int16),
        history=columns["list_history"],
        history_category=columns["list_history_category"] % shape.categories,
        age=columns["list_age"],
        labels=np.zeros(len(columns["item"]), np.uint8),
    )


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


def starts(size: Array) -> Array:
    """Where each list begins in its items, and the end: int64 [B + 1].

    >>> starts(np.array([2, 3])).tolist()
    [0, 2, 5]
    """
    start = np.zeros(len(size) + 1, np.int64)
    np.cumsum(size, out=start[1:])
    return start


def items_of(start: Array, index: Array) -> Array:
    """Where the items of the lists `index` are, list after list.

    >>> items_of(np.array([0, 2, 5]), np.array([1, 0])).tolist()
    [2, 3, 4, 0, 1]
    """
    size = (start[1:] - start[:-1])[index]
    own = starts(size)
    where: Array = np.arange(own[-1]) + np.repeat(start[:-1][index] - own[:-1], size)
    return where


def select(lists: Lists, index: Array) -> Lists:
    """The lists `index` (int64), in that order."""
    item = items_of(lists.start, index)
    return Lists(
        start=starts((lists.start[1:] - lists.start[:-1])[index]),
        **{name: getattr(lists, name)[item] for name in ("item", "category", "features", "place")},
        **{name: getattr(lists, name)[index] for name in ("history", "history_category", "age")},
        labels=lists.labels[item],
    )


def pick(shown: Shown, index: Array) -> Shown:
    """The lists `index` (int64), in that order, with what is known of them."""
    return Shown(select(shown.lists, index), *(column[index] for column in shown[1:]))


def merge(batches: list[Batch]) -> Batch:
    """Several batches as one; at least one. Lists and labels are in the order of their brokers' time.

    Partitions are read one after another: after a pause, seconds of the first, then seconds of the next.
    """
    if len(batches) == 1:
        return batches[0]
    shown, labels, acts, names = zip(*batches, strict=True)
    all_shown = Shown(concatenate([s.lists for s in shown]), *_stack([s[1:] for s in shown]))
    all_labels = Labels(*_stack(labels))
    order = np.argsort(all_labels.broker_ts, kind="stable")
    return Batch(
        pick(all_shown, np.argsort(all_shown.broker_ts, kind="stable")),
        Labels(*(column[order] for column in all_labels)),
        Acts(*_stack(acts)),
        {code: name for each in names for code, name in each.items()},
    )


def concatenate(lists: list[Lists]) -> Lists:
    """Several batches of lists as one, in order."""
    size = np.concatenate([each.start[1:] - each.start[:-1] for each in lists])
    names = ("item", "category", "features", "place", "history", "history_category", "age", "labels")
    return Lists(
        start=starts(size),
        **{name: np.concatenate([getattr(each, name) for each in lists]) for name in names},
    )


def _stack(rows: Any) -> list[Array]:
    return [np.concatenate(columns) for columns in zip(*rows, strict=True)]
