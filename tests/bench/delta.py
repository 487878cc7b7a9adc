"""From a model update received to visitors scored with it, in ms: a delta, against a whole snapshot.

Rank's slot takes a delta as train published it after one second of traffic, then 16 visitors with 200
candidates are scored; the alternative loads the snapshot of the same version and builds a new session.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import count

import numpy as np
from msgspec.structs import replace

from models.batch import F
from stream.checkpoint import Store
from stream.messages import ModelUpdate
from stream.rank.models import Slot
from stream.settings import shape_of
from tests.bench.measure import Context, Figure, Watch
from tests.bench.world import grow

VISITORS, CANDIDATES = 16, 200


def run(context: Context) -> list[Figure]:
    """Times, and what travels."""
    world = grow(context.directory, context.seconds, context.visits)
    # the first ones carry every item, because all are new: what comes later is the rule
    half = 1 + len(world.updates) // 2
    deltas = world.updates[half:]
    kept, whole = Slot(shape_of(world.settings)), Slot(shape_of(world.settings))
    for update in world.updates[:half]:
        kept.take(update, world.store)
    number = count(1)
    ours, other = [], []
    for update in deltas:
        ours.append(_take(kept, update, world.store))
        other.append(_take(whole, replace(world.whole, n=next(number)), world.store))
    mine, its = np.median(ours, axis=0), np.median(other, axis=0)
    size = statistics.median(len(update.payload or b"") for update in deltas)
    snapshot = (world.store.path / (world.whole.uri or "")).stat().st_size
    return [
        Figure("received to taken up", "ms", mine[0], "snapshot", its[0]),
        Figure("received to scored", "ms", mine[1], "snapshot", its[1]),
        Figure(f"message, {len(world.learner.table)} items", "kB", size / 1e3, "snapshot", snapshot / 1e3),
    ]


def _take(slot: Slot, update: ModelUpdate, store: Store) -> tuple[float, float]:
    """Milliseconds until the slot has taken the update up, and until it has scored with it."""
    score = _scoring(slot)
    watch = Watch()
    if not slot.take(update, store):
        raise ValueError(f"version {update.epoch}-{update.n} does not follow {slot.version}")
    taken = watch.spent().wall
    score()
    return 1e3 * taken, 1e3 * watch.spent().wall


def _scoring(slot: Slot) -> Callable[[], object]:
    """Scores random items for random visitors, with the model that the slot then has."""
    rng = np.random.default_rng(0)
    n, h, shape = VISITORS * CANDIDATES, slot.shape.history, slot.shape
    inputs = (
        rng.standard_normal((n, F)).astype(np.float32), rng.integers(0, shape.rows, n),
        rng.integers(0, shape.categories, n), np.repeat(np.arange(VISITORS), CANDIDATES),
        rng.integers(0, shape.rows, (VISITORS, h)), rng.integers(0, shape.categories, (VISITORS, h)),
        rng.exponential(600, (VISITORS, h)).astype(np.float32),
    )  # fmt: skip

    def score() -> object:
        assert slot.served is not None
        return slot.served.score(*inputs)

    return score
