"""The models that rank serves from, by slot, kept up to date by deltas and snapshots."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.batch import S, Shape
from models.served import Served
from stream.checkpoint import Store
from stream.errors import Retryable
from stream.messages import ModelUpdate
from stream.rank.alike import NOTHING, group_alike
from stream.rank.catalogue import Catalogue
from stream.rank.known import Known

Array = NDArray[Any]
logger = logging.getLogger(__name__)

GROUPED_PER_S = 100_000
"""Catalogue entries grouped per second at the most: some 2% of a core."""


class Slot:
    """One served model and its version; `served` is None until the first snapshot."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.served: Served | None = None
        self.epoch, self.n, self.trained_through = 0, 0, 0
        self.known = unknowing(shape)
        self.trending = np.zeros(0, np.uint64)
        self.alike = NOTHING
        self._grouped = 0.0

    @property
    def version(self) -> str:
        """Epoch and number, as slates and traces name it."""
        return f"{self.epoch}-{self.n}"

    def take(self, update: ModelUpdate, store: Store) -> bool:
        """Bring the slot up to date, if the update fits; returns whether anything changed.

        An update that leaves a gap is passed over: the next snapshot closes it.
        """
        if (update.epoch, update.n) <= (self.epoch, self.n):
            return False
        try:
            if update.uri is not None:
                self.served = Served.load(store.get(update.uri, update.checksum), self.shape)
            elif self.served is not None and (update.epoch, update.n - 1) == (self.epoch, self.n):
                self.served.apply(update.payload or b"")
            else:
                return False
        except (Retryable, ValueError) as error:
            # the version stays behind, so what follows does not fit until the next snapshot
            logger.warning("model %s %d-%d not used: %s", update.slot, update.epoch, update.n, error)
            return False
        self.epoch, self.n, self.trained_through = update.epoch, update.n, update.trained_through
        self._refresh(self.served)
        return True

    def copy(self, into: Slot | None = None) -> Slot:
        """A slot that goes on serving what this one serves now; written over `into`, an earlier copy.

        Raises
        ------
        ValueError
            When there is no model yet.
        """
        if self.served is None:
            raise ValueError("there is no model to copy yet")
        twin = into or Slot(self.shape)
        twin.epoch, twin.n, twin.trained_through = self.epoch, self.n, self.trained_through
        twin.alike = self.alike
        twin.served = self.served.copy(twin.served)
        twin._refresh(twin.served)
        return twin

    def group(self, catalogue: Catalogue, now: float) -> None:
        """Group the catalogue by kind anew; a large one less often."""
        if now - self._grouped >= len(catalogue) / GROUPED_PER_S:
            # as of the newest event counted: a recording has a time of its own
            counted = int(self.known.stats_at.max())
            self.alike, self._grouped = group_alike(catalogue, self.known, counted), now

    def _refresh(self, served: Served) -> None:
        rows = served.rows
        self.trending = np.array(served.trending, np.uint64)  # writable, as kernels were compiled for
        self.known = Known(
            keys=served.table.keys,
            rows=served.table.rows,
            stats=rows["stats"],
            stats_at=rows["stats_at"],
            first_seen=rows["first_seen"],
            category_stats=rows["category_stats"],
            category_stats_at=rows["category_stats_at"],
            context_stats=rows["context_stats"],
            context_stats_at=rows["context_stats_at"],
            near=rows["near"],
            near_weight=rows["near_weight"],
            near_next=rows["near_next"],
            near_often=rows["near_often"],
            near_at=rows["near_at"],
            prior=served.prior,
            total=float(rows["stats"][:, 3].sum()),
            cold=self.shape.cold,
            half_life_short=self.shape.half_life_short,
            half_life_long=self.shape.half_life_long,
            history_half_life=self.shape.history_half_life,
            near_half_life=self.shape.near_half_life,
        )


def unknowing(shape: Shape) -> Known:
    """What a model knows before it has learned: nothing."""
    return Known(
        keys=np.zeros(16, np.uint64),
        rows=np.full(16, -1, np.int32),
        stats=np.zeros((1, S), np.float32),
        stats_at=np.zeros(1, np.int64),
        first_seen=np.zeros(1, np.int64),
        category_stats=np.zeros((shape.categories, S), np.float32),
        category_stats_at=np.zeros(shape.categories, np.int64),
        context_stats=np.zeros((shape.categories, S), np.float32),
        context_stats_at=np.zeros(shape.categories, np.int64),
        near=np.zeros((1, shape.neighbours), np.uint64),
        near_weight=np.zeros((1, shape.neighbours), np.float32),
        near_next=np.zeros((1, shape.neighbours), np.uint8),
        near_often=np.zeros((1, shape.neighbours), np.uint8),
        near_at=np.zeros(1, np.int64),
        prior=np.array([0.05, 0.05, 0.1, 0.1], np.float32),
        total=0.0,
        cold=shape.cold,
        half_life_short=shape.half_life_short,
        half_life_long=shape.half_life_long,
        history_half_life=shape.history_half_life,
        near_half_life=shape.near_half_life,
    )
