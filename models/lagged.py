"""The model as it was some time ago, to predict with beside the newest. Needs no torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

from models.admission import resolve
from models.batch import Array, Lists, Shape
from models.scorer import Scorer
from models.table import Table

STEPS = 4
"""Copies per lag: a model that should be L old is L to L + L / STEPS old."""


class Older(Protocol):
    """An older copy of the model: `models.served.Served` or `Copy`."""

    table: Table

    def score(
        self,
        x: Array,
        row: Array,
        category: Array,
        user: Array,
        history_row: Array,
        history_category: Array,
        age: Array,
        place: Array | None = None,
    ) -> tuple[Array, Array]:
        """See `models.scorer.Scorer.score`."""


def said_by(older: Older, lists: Lists, cold: int) -> tuple[Array, Array]:
    """Score [N] and probabilities [N, T] of lists; items without a row have one of the first `cold`."""
    return older.score(
        lists.features,
        resolve(older.table.lookup(lists.item), lists.item, cold),
        lists.category,
        np.repeat(np.arange(len(lists)), np.diff(lists.start)),
        resolve(older.table.lookup(lists.history), lists.history, cold),
        lists.history_category,
        lists.age,
        lists.place,
    )


class Weights(NamedTuple):
    """A copy of what predicting needs; all rows after the last one in use are left out.

    Attributes
    ----------
    id : uint64 [n]
        Whose the first n rows are; 0 where shared, or nobody's.
    embedding, bias : float32 [n, D], [n]
    category : float32 [C, D]
    dense : dict[str, Array]
    """

    id: Array
    embedding: Array
    bias: Array
    category: Array
    dense: dict[str, Array]


def copy_weights(shape: Shape, ids: Array, rows: Mapping[str, Array], dense: dict[str, Array]) -> Weights:
    """Copy the rows in use.

    Parameters
    ----------
    shape
    ids : uint64 [R]
        Item of each row, 0 where nobody has it.
    rows
        `models.trainer.Trainer.rows`.
    dense
        `models.trainer.Trainer.dense`; taken over as it is.
    """
    n = max(shape.cold, int(np.flatnonzero(ids).max(initial=-1)) + 1)
    embedding, bias = rows["embedding"][:n].copy(), rows["bias"][:n].copy()
    return Weights(ids[:n].copy(), embedding, bias, rows["category"].copy(), dense)


class Copy:
    """A model to predict with: `put` makes it what some weights are.

    Attributes
    ----------
    table : Table
        Which item has which row.
    """

    def __init__(self, shape: Shape, graph: bytes, weights: Weights) -> None:
        self.table, self._used = Table(shape.rows), 0
        self._rows = {
            "embedding": np.zeros((shape.rows, shape.width), np.float32),
            "bias": np.zeros(shape.rows, np.float32),
            "category": np.zeros((shape.categories, shape.width), np.float32),
        }
        self._dense = {name: array.copy() for name, array in weights.dense.items()}
        self._scorer = Scorer(graph, self._dense, self._rows)
        self.put(weights)

    def put(self, weights: Weights) -> None:
        """Take on other weights; rows that they leave out cannot be reached any more."""
        n = len(weights.id)
        ids = np.zeros(max(n, self._used), np.uint64)
        ids[:n], self._used = weights.id, n
        moved = np.flatnonzero(ids != self.table.ids[: len(ids)])
        self.table.put(ids[moved], moved)
        self._rows["embedding"][:n], self._rows["bias"][:n] = weights.embedding, weights.bias
        self._rows["category"][...] = weights.category
        for name, array in weights.dense.items():
            self._dense[name][...] = array

    def score(
        self,
        x: Array,
        row: Array,
        category: Array,
        user: Array,
        history_row: Array,
        history_category: Array,
        age: Array,
        place: Array | None = None,
    ) -> tuple[Array, Array]:
        """Score [N] and probabilities [N, T] of items for users, see `models.scorer.Scorer.score`."""
        return self._scorer.score(x, row, category, user, history_row, history_category, age, place)


class Lagged:
    """A model that is some time older than the newest, as closely as a few copies allow.

    Memory is bounded: up to `STEPS` copies of the rows in use, and one model.

    Parameters
    ----------
    shape
    lag
        How old it should be at least, ms.

    Attributes
    ----------
    model : Copy or None
        None until the first copy is old enough.
    """

    def __init__(self, shape: Shape, lag: int) -> None:
        self._shape, self._lag = shape, lag
        self._waiting: deque[tuple[int, Weights]] = deque()
        self._next = 0
        self.model: Copy | None = None

    def __len__(self) -> int:
        """Copies that wait."""
        return len(self._waiting)

    def due(self, now: int) -> bool:
        """Whether another copy is wanted at `now`, ms."""
        return now >= self._next

    def keep(self, weights: Weights, now: int) -> None:
        """Copy of the newest model, taken at `now`, ms."""
        self._waiting.append((now, weights))
        self._next = now + self._lag // STEPS

    def advance(self, graph: bytes, now: int) -> None:
        """Bring the model to the newest copy that is old enough at `now`, ms."""
        old = None
        while self._waiting and self._waiting[0][0] <= now - self._lag:
            old = self._waiting.popleft()[1]
        if old is not None and self.model is not None:
            self.model.put(old)
        elif old is not None:
            self.model = Copy(self._shape, graph, old)
