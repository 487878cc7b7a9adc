"""A small world whose visitors click on what they like, as the messages that rank would send."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from models.batch import FEATURE, F, Shape
from stream.messages import Examples, encode_binary

T0 = 1_700_000_000_000
ITEMS = 60
SIZE = 8


@dataclass
class Lists:
    """Columns of some lists; each of SIZE items."""

    offset: list[int]
    ts: list[int]
    items: np.ndarray
    features: np.ndarray
    clicks: np.ndarray
    user: list[int] = field(default_factory=list)


def message(shape: Shape, *, partition: int = 0, first: int = 0, last: int = 0, **columns: Any) -> Examples:
    """A message with these columns; those left out are empty."""
    from stream.train.join import COLUMNS

    unknown = set(columns) - set(COLUMNS) - {"names", "schema"}
    assert not unknown
    raw = {}
    widths = {"H": shape.history, "F": F}
    for name, (dtype, letters) in COLUMNS.items():
        rows = columns.get(name, np.zeros((0, widths.get(letters[1:], 1))))
        raw[name] = np.asarray(rows).astype(dtype).tobytes()
    schema = columns.get("schema", shape.schema)
    names = columns.get("names", {})
    return Examples(schema=schema, partition=partition, first=first, last=last, names=names, **raw)


def shown(shape: Shape, offset: list[int], ts: list[int], items: np.ndarray, features: np.ndarray) -> dict[str, Any]:
    """Columns of lists without history."""
    b = len(offset)
    return {
        "list_offset": offset,
        "list_ts": ts,
        "list_broker_ts": ts,
        "list_user": np.arange(b) + 20,
        "list_arm": np.zeros(b),
        "list_size": np.full(b, items.shape[1]),
        "list_own": np.ones(b),
        "list_history": np.zeros((b, shape.history)),
        "list_history_category": np.zeros((b, shape.history)),
        "list_age": np.full((b, shape.history), -1),
        "item": items.ravel(),
        "item_category": items.ravel() % 7,
        "features": features.reshape(-1, F),
    }


class World:
    """Lists of random items; an item's own appeal and one feature decide on a click."""

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        self.shape, self.rng = shape, np.random.default_rng(seed)
        self.appeal = self.rng.normal(0, 1.5, ITEMS)
        self.offset = 0
        self._late: list[tuple[int, int, int, int]] = []

    def step(self, lists: int, ts: int, partition: int = 0, flip: bool = False) -> bytes:
        """Lists shown at `ts`, and the clicks on the lists of the step before."""
        rng, shape = self.rng, self.shape
        index = np.array([rng.choice(ITEMS, SIZE, replace=False) for _ in range(lists)])
        features = rng.normal(0, 1, (lists, SIZE, F)).astype(np.float32)
        odds = self.appeal[index] + 1.5 * features[:, :, FEATURE["price"]] - 2
        clicked = rng.random((lists, SIZE)) < 1 / (1 + np.exp(-odds))
        if flip:
            clicked = odds < np.median(odds)
        offsets = list(range(self.offset, self.offset + lists))
        labels, self._late = self._late, [
            (offsets[b], place, int(index[b, place]) + 2, ts) for b, place in zip(*np.nonzero(clicked), strict=True)
        ]
        first, self.offset = self.offset, self.offset + lists + len(labels)
        acts = {
            "act_offset": np.arange(len(labels)) + first + lists,
            "act_ts": [ts for _ in labels],
            "act_item": [item for _, _, item, _ in labels],
            "act_category": np.zeros(len(labels)),
            "act_task": np.zeros(len(labels)),
            "act_listed": np.ones(len(labels)),
            "act_history": np.zeros((len(labels), shape.history)),
            "act_age": np.full((len(labels), shape.history), -1),
        }
        labelled = {
            "label_list": [offset for offset, *_ in labels],
            "label_position": [place for _, place, *_ in labels],
            "label_task": np.zeros(len(labels)),
            "label_ts": [ts for _ in labels],
            "label_broker_ts": [ts for _ in labels],
        }
        columns = shown(shape, offsets, [ts] * lists, (index + 2).astype(np.uint64), features)
        names = {i + 2: f"item{i}" for i in range(ITEMS)} if first == 0 else {}
        return encode_binary(
            message(
                shape, partition=partition, first=first, last=self.offset - 1, names=names,
                **columns, **labelled, **acts,
            )
        )  # fmt: skip
