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
from tests.bench.measure import Context, Figure, Spent, Watch, alternate
from tests.bench.world import grow

VISITORS, CANDIDATES = 16, 200


def run(context: Context) -> list[Figure]:
    """Times, and what travels."""
    world = grow(context.directory, seconds=context.size(10, 3))
    # the first ones carry every item, because all are new: what comes later is the rule
    half = 1 + len(world.updates) // 2
    deltas = world.updates[half:]
    kept, whole = Slot(shape_of(world.settings)), Slot(shape_of(world.settings))
    for update in world.updates[:half]:
        kept.take(update, world.store)
    fresh, number = iter(deltas), count(1)

    def delta() -> Spent:
        return _take(kept, next(fresh), world.store)

    def load() -> Spent:
        return _take(whole, replace(world.whole, n=next(number)), world.store)

    ours, other = alternate(len(deltas), [delta, load])
    snapshot = (world.store.path / (world.whole.uri or "")).stat().st_size
    size = statistics.median(len(update.payload or b"") for update in deltas)
    rows = f"{len(world.learner.table)} items"
    return [
        Figure(f"received to scored, {rows}", "ms", 1e3 * ours.wall, "snapshot", 1e3 * other.wall),
        Figure(f"received to scored, {rows}", "CPU ms", 1e3 * ours.cpu, "snapshot", 1e3 * other.cpu),
        Figure("message", "kB", size / 1e3, "snapshot", snapshot / 1e3),
    ]


def _take(slot: Slot, update: ModelUpdate, store: Store) -> Spent:
    score = _scoring(slot)
    watch = Watch()
    if not slot.take(update, store):
        raise ValueError(f"version {update.epoch}-{update.n} does not follow {slot.version}")
    score()
    return watch.spent()


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
