"""The model as rank holds it: loaded from a snapshot, kept up to date by deltas. Needs no torch."""

from __future__ import annotations

from copy import deepcopy

import numpy as np

from models.batch import Array, S, Shape
from models.delta import Assigned, Delta, apply_assigned, apply_blocks, decode_delta
from models.lora import added
from models.scorer import Scorer
from models.table import Table

PRIOR = "prior"
"""Mean rates (`models.statistics.PRIOR`): travel with the dense arrays, but the graph does not read them."""


class Served:
    """Everything that train has learned and counted, as of one version.

    Attributes
    ----------
    shape : Shape
    table : Table
        Which item has which row.
    rows : dict[str, Array]
        Row arrays ``embedding`` [R, D], ``bias`` [R], ``category`` [C, D], ``stats`` [R, S], ``stats_at``,
        ``first_seen`` [R], ``category_stats`` [C, S], ``category_stats_at`` [C],
        ``context_stats`` [C, S], ``context_stats_at`` [C], ``near``, ``near_weight``,
        ``near_next``, ``near_often`` [R, K], ``near_at`` [R]: see `models.statistics` and
        `models.covisitation`. The same arrays from load to the end.
    names : list[str | None]
        Of each row.
    trending : uint64 [*]
        Ids, most touched first.
    prior : float32 [4]
        `models.statistics.PRIOR`.
    """

    def __init__(self, shape: Shape, delta: Delta, threads: int, device: str) -> None:
        self.shape = shape
        self.table = Table(shape.rows)
        self.names: list[str | None] = [None] * shape.rows
        self._items = _item_arrays(shape)
        self.rows = self._items | _category_arrays(shape)
        self._dense = {name: np.array(array) for name, array in delta.dense.items()}
        self._take(delta)
        self._graph, self._where = delta.graph, (threads, device)
        learned = {name: self.rows[name] for name in ("embedding", "bias", "category")}
        self._scored = {name: array for name, array in added(self._dense).items() if name != PRIOR}
        self._scorer = Scorer(delta.graph, self._scored, learned, threads, device)

    @classmethod
    def load(cls, snapshot: bytes, shape: Shape, threads: int = 1, device: str = "cpu") -> Served:
        """Take up a snapshot of `models.learner.Learner.snapshot`.

        Raises
        ------
        ValueError
            When it is damaged, or of another shape.
        """
        delta = decode_delta(snapshot, shape.schema)
        if not delta.graph or PRIOR not in delta.dense:
            raise ValueError("not a snapshot: it has no scoring graph or no mean rates")
        return cls(shape, delta, threads, device)

    def apply(self, delta: bytes) -> None:
        """Take up what changed since the version that this one is at; not while something is scored.

        Raises
        ------
        ValueError
            When the delta is damaged, or of another shape. Load a snapshot then.
        """
        self._take(decode_delta(delta, self.shape.schema))
        self._refresh()

    def copy(self, into: Served | None = None) -> Served:
        """An independent model that is as this one is now; written over an earlier copy, if there is one."""
        none = Assigned(np.zeros(0, np.int64), np.zeros(0, np.uint64), [])
        first = Delta(self.shape.schema, self._dense, none, [], graph=self._graph)
        twin = Served(self.shape, first, *self._where) if into is None else into
        # most rows of items may be nobody's, there and here
        owned = (self.table.ids != 0) | (twin.table.ids != 0)
        owned[: self.shape.cold] = True
        used = np.flatnonzero(owned)
        twin.table, twin.names = deepcopy(self.table), list(self.names)
        twin.trending = self.trending.copy()
        for name, array in self._dense.items():
            np.copyto(twin._dense[name], array)
        for name, array in self.rows.items():
            rows = used if name in self._items else slice(None)
            twin.rows[name][rows] = array[rows]
        twin._refresh()
        return twin

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

    @property
    def prior(self) -> Array:
        """Mean rates."""
        return self._dense[PRIOR]

    def _refresh(self) -> None:
        for name, array in added(self._dense).items():
            if name != PRIOR and array is not self._scored[name]:
                np.copyto(self._scored[name], array)
        self._scorer.refresh([*self._scored, "embedding", "bias", "category"])

    def _take(self, delta: Delta) -> None:
        for name, array in delta.dense.items():
            if name not in self._dense or array.shape != self._dense[name].shape:
                raise ValueError(f"model delta has {name!r} of shape {array.shape}, which does not fit")
        apply_assigned(delta.assigned, self.table, self.names, self._items)
        apply_blocks(delta.blocks, self.rows)
        for name, array in delta.dense.items():
            self._dense[name][...] = array
        self.trending = delta.lists.get("trending", np.zeros(0, np.uint64))


def _item_arrays(shape: Shape) -> dict[str, Array]:
    r, k = shape.rows, shape.neighbours
    return {
        "embedding": np.zeros((r, shape.width), np.float32),
        "bias": np.zeros(r, np.float32),
        "stats": np.zeros((r, S), np.float32),
        "stats_at": np.zeros(r, np.int64),
        "first_seen": np.zeros(r, np.int64),
        "near": np.zeros((r, k), np.uint64),
        "near_weight": np.zeros((r, k), np.float32),
        "near_next": np.zeros((r, k), np.uint8),
        "near_often": np.zeros((r, k), np.uint8),
        "near_at": np.zeros(r, np.int64),
    }


def _category_arrays(shape: Shape) -> dict[str, Array]:
    return {
        "category": np.zeros((shape.categories, shape.width), np.float32),
        "category_stats": np.zeros((shape.categories, S), np.float32),
        "category_stats_at": np.zeros(shape.categories, np.int64),
        "context_stats": np.zeros((shape.categories, S), np.float32),
        "context_stats_at": np.zeros(shape.categories, np.int64),
    }
