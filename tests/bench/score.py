"""Visitors scored per second at 200 candidates, one thread: ours, torch, ONNX Runtime alone.

Ours is all of it: candidates, their features, scores, the best ten. The others score what ours has
gathered: torch's eager forward of the same weights, and the session without candidates and features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.batch import Array
from models.ranker import forward, probabilities, users
from stream.rank.slate import USERS, Offers, best_scored, gather_offers, offers
from tests.bench.measure import Context, Figure, alternate, rates, timed
from tests.bench.world import START_MS, World, grow

SIZES = (1, USERS)
"""Visitors in one call."""

VISITORS = 960
"""In one measurement."""


def run(context: Context) -> list[Figure]:
    """Each size of call."""
    torch.set_num_threads(1)
    world = grow(context.directory, context.seconds, context.visits)
    return [figure for size in SIZES for figure in _at(context, world, size)]


def _at(context: Context, world: World, size: int) -> list[Figure]:
    rank, slot, settings = world.rank, world.rank.slots["fresh"], world.settings.slate
    visitors, now = np.arange(size), np.full(size, START_MS + 60_000)
    out = offers(settings.candidates, rank.shape.history)

    def gather() -> None:
        gather_offers(
            out, visitors, now, settings.candidates, True, slot.trending,
            rank.catalogue.newest(settings.candidates), slot.alike, rank.shares[0].visitors.memory,
            slot.known, rank.catalogue.known(), rank.limits, rank.scratch,
        )  # fmt: skip

    def ours() -> None:
        gather()
        best_scored(out, size, slot, settings.size)

    gather()
    found = int(out.start[size])
    if found != size * settings.candidates:
        raise ValueError(f"{found} candidates for {size} visitors: the shop is too small")
    inputs = _inputs(out, size)
    served = slot.served
    assert served is not None
    weights = _weights(world)
    _agree(served.score(*inputs)[0], _forward(weights, *_tensors(inputs))[0].numpy())
    times = context.size(VISITORS // size, 1)
    spent = alternate(
        context.rounds,
        [
            timed(ours, times),
            timed(lambda: _forward(weights, *_tensors(inputs)), times),
            timed(lambda: served.score(*inputs), times),
            timed(gather, times),
        ],
    )
    mine, eager, session, features = spent
    return [
        *rates(f"{size} a call: everything", "visitors", size, mine, "torch forward only", eager),
        *rates(f"{size} a call: everything", "visitors", size, mine, "ONNX only", session),
        *rates(f"{size} a call: everything", "visitors", size, mine, "candidates, features only", features),
        *rates(f"{size} a call: ONNX only", "visitors", size, session, "torch forward only", eager),
    ]


def _inputs(out: Offers, size: int) -> tuple[Array, ...]:
    total = int(out.start[size])
    return (
        out.features[:total], out.row[:total], out.category[:total].astype(np.int64), out.user[:total],
        out.history_row[:size], out.history_category[:size], out.age[:size],
    )  # fmt: skip


def _tensors(inputs: tuple[Array, ...]) -> list[Tensor]:
    return [torch.from_numpy(array) for array in inputs]


def _weights(world: World) -> dict[str, Tensor]:
    trainer = world.learner.trainer
    return {name: torch.from_numpy(a) for name, a in {**trainer.dense(), **trainer.rows()}.items()}


@torch.inference_mode()
def _forward(
    w: dict[str, Tensor], x: Tensor, row: Tensor, category: Tensor, user: Tensor, history_row: Tensor,
    history_category: Tensor, age: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    taste = users(w, w["embedding"][history_row] + w["category"][history_category], age)
    item = w["embedding"][row] + w["category"][category]
    out = forward(w, x, item, w["bias"][row], taste, user, torch.zeros_like(row))
    return out.score, probabilities(out)


def _agree(ours: Array, theirs: Array) -> None:
    """Two ways to compute different things would be no alternatives."""
    if not np.allclose(ours, theirs, atol=1e-2):
        raise ValueError(f"scores differ by {np.abs(ours - theirs).max()}")
