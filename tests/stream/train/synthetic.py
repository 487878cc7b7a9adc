"""A small world whose visitors click on what they like, as the messages that rank would send."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.batch import CONTEXTS, FEATURE, Array, F, Lists, Shape
from stream.messages import UNSEEN, Examples, encode_binary
from stream.train.join import COLUMNS, decode

T0 = 1_700_000_000_000
ITEMS = 60
SIZE = 8


def message(shape: Shape, partition: int = 0, first: int = 0, last: int = 0, **columns: Any) -> Examples:
    """A message with these columns (also ``schema``, ``names``); those left out are empty."""
    assert set(columns) <= {*COLUMNS, "schema", "names"}
    widths = {"H": shape.history, "F": F, "X": CONTEXTS}
    raw = {}
    for name, (dtype, letters) in COLUMNS.items():
        rows = columns.get(name, np.zeros((0, widths.get(letters[1:], 1))))
        raw[name] = rows if isinstance(rows, bytes) else np.asarray(rows).astype(dtype).tobytes()
    return Examples(
        schema=columns.get("schema", shape.schema),
        names=columns.get("names", {}),
        partition=partition,
        first=first,
        last=last,
        **raw,
    )


def lists(
    shape: Shape, offset: list[int], ts: int | list[int], sizes: list[int] | None = None
) -> dict[str, Any]:
    """Columns of lists without history; item k of the list at offset o has id 100 o + k + 2."""
    sizes = sizes or [3] * len(offset)
    times = [ts] * len(offset) if isinstance(ts, int) else ts
    item = [100 * o + k + 2 for o, n in zip(offset, sizes, strict=True) for k in range(n)]
    return {
        "list_offset": offset,
        "list_ts": times,
        "list_broker_ts": times,
        "list_user": np.array(offset) * 10,
        "list_arm": np.zeros(len(offset)),
        "list_size": sizes,
        "list_own": np.array(offset) % 2,
        "list_history": np.tile(np.array(offset).reshape(-1, 1), (1, shape.history)),
        "list_history_category": np.zeros((len(offset), shape.history)),
        "list_age": np.full((len(offset), shape.history), -1.0),
        "list_context": np.zeros((len(offset), CONTEXTS)),
        "item": item,
        "item_category": np.array(item) % 7,
        "features": np.repeat(np.array(item, np.float32).reshape(-1, 1), F, 1),
    }


def labels(rows: list[tuple[int, int, int]], ts: int = T0) -> dict[str, Any]:
    """Columns of labels (list offset, position, task)."""
    offset, position, task = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    times = [ts] * len(rows)
    return {
        "label_list": offset,
        "label_position": position,
        "label_task": task,
        "label_ts": times,
        "label_broker_ts": times,
    }


def acts(shape: Shape, offset: list[int], items: list[int], ts: int = T0) -> dict[str, Any]:
    """Columns of listed clicks without history."""
    n = len(offset)
    return {
        "act_offset": offset,
        "act_ts": [ts] * n,
        "act_item": items,
        "act_category": np.zeros(n),
        "act_task": np.zeros(n),
        "act_listed": np.ones(n),
        "act_history": np.zeros((n, shape.history)),
        "act_age": np.full((n, shape.history), -1.0),
        "act_context": np.zeros((n, CONTEXTS)),
    }


class World:
    """Lists of random items; an item's own appeal and its price decide on a click, seen one step later.

    Both may be changed at any time.
    """

    def __init__(self, shape: Shape, seed: int = 0, unseen: bool = False, partition: int = 0) -> None:
        self.shape, self.rng, self.unseen = shape, np.random.default_rng(seed), unseen
        self.partition = partition
        self.appeal, self.price = self.rng.normal(0, 1.5, ITEMS), 1.5
        self.offset = 0
        self._late: list[tuple[int, int, int]] = []

    def step(self, count: int, ts: int, flip: bool = False) -> bytes:
        """Lists shown at `ts`, and the clicks on those of the step before; `flip`: on what nobody likes."""
        index = np.array([self.rng.choice(ITEMS, SIZE, replace=False) for _ in range(count)])
        features = self.rng.normal(0, 1, (count, SIZE, F)).astype(np.float32)
        chance = self._chance(index, features)
        clicked = self.rng.random((count, SIZE)) < (1 - chance if flip else chance)
        first, shown = self.offset, [self.offset + b for b in range(count)]
        rows, self._late = (
            self._late,
            [(shown[b], int(k), int(index[b, k]) + 2) for b, k in np.argwhere(clicked)],
        )
        self.offset += count + len(rows)
        columns = lists(self.shape, shown, ts, [SIZE] * count)
        columns |= {
            "item": index.ravel() + 2,
            "item_category": index.ravel() % 7,
            "features": features.reshape(-1, F),
        }
        if self.unseen:
            columns["list_own"] = [UNSEEN] * count
        columns |= labels([(offset, k, 0) for offset, k, _ in rows], ts)
        columns |= acts(self.shape, list(range(first + count, self.offset)), [item for *_, item in rows], ts)
        names = {i + 2: f"item{i}" for i in range(ITEMS)} if first == 0 else {}
        return encode_binary(
            message(self.shape, self.partition, first=first, last=self.offset - 1, names=names, **columns)
        )

    def lists(self, count: int) -> Lists:
        """Lists as `step` shows them."""
        batch, _ = decode(self.step(count, T0), self.shape, self.partition)
        return batch.shown.lists

    def chances(self, lists: Lists) -> Array:
        """How probable a click on each item is (float [N])."""
        return self._chance(lists.item.astype(np.int64) - 2, lists.features)

    def _chance(self, index: Array, features: Array) -> Array:
        odds = self.appeal[index] + self.price * features[..., FEATURE["price"]] - 2
        chance: Array = 1 / (1 + np.exp(-odds))
        return chance
