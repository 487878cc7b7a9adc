"""Steps of training on a GPU, recorded as graphs, against the CPU and against launching kernel by kernel.

`small` is the default model with its batches, `large` the one that the README gives for a GPU.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from models.batch import Array, F, Lists, Shape
from models.table import Table
from models.trainer import Trainer
from tests.bench.measure import Context, Figure, Skip, Spent, Watch, alternate

ITEMS, PER_LIST = 50_000, 25

SMALL = Shape()
LARGE = replace(SMALL, width=128, hidden=1024, rows=200_000)

REPLAY = 4
"""Steps on what was learned before, after each on what is new."""


SIZES = (
    ("small", SMALL, 32, 20),
    ("small", SMALL, 1024, 10),
    ("large", LARGE, 32, 10),
    ("large", LARGE, 1024, 4),
)
"""Name and shape of the model, lists of a step, and steps on new lists."""


def run(context: Context) -> list[Figure]:
    """Lists a second, by size of model and batch."""
    if not torch.cuda.is_available():
        raise Skip("no CUDA device")
    return [
        figure
        for name, shape, count, steps in SIZES
        for figure in _compare(context, f"{name}, {count} lists a step", shape, count, context.size(steps, 1))
    ]


def _compare(context: Context, what: str, shape: Shape, count: int, steps: int) -> list[Figure]:
    rng = np.random.default_rng(0)
    batches = [_lists(rng, count, shape.history) for _ in range(steps)]
    graphs = {"device": "cuda", "cuda_graphs": True}
    ways = graphs, {**graphs, "bfloat16": True}, {"device": "cuda"}, {"device": "cpu"}
    trainers = [_trainer(shape, **way) for way in ways]
    spent = alternate(context.rounds, [partial(_learn, trainer, batches) for trainer in trainers])
    ours, mixed, launched, cpu = (count * steps * (1 + REPLAY) / each.wall for each in spent)
    return [
        Figure(what, "lists/s", ours, "CPU", cpu),
        Figure(what, "lists/s", ours, "kernel by kernel", launched),
        Figure(f"{what}, bfloat16", "lists/s", mixed, "float32", ours),
    ]


def _trainer(shape: Shape, **how: Any) -> Trainer:
    table = Table(shape.rows)
    table.put(_ids(np.arange(ITEMS)), np.arange(shape.cold, shape.cold + ITEMS))
    return Trainer(shape, table, **how)


def _learn(trainer: Trainer, batches: list[Lists]) -> Spent:
    watch = Watch()
    for lists in batches:
        trainer.learn(lists)
        for _ in range(REPLAY):
            trainer.learn(lists, again=True)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return watch.spent()


def _lists(rng: np.random.Generator, count: int, history: int) -> Lists:
    """Random lists; few items are in many of them."""
    size = rng.integers(PER_LIST - 10, PER_LIST + 11, count)
    n = int(size.sum())
    item, touched = _popular(rng, n), _popular(rng, (count, history))
    return Lists(
        start=np.concatenate([[0], size.cumsum()]),
        item=_ids(item),
        category=(item % 300).astype(np.uint16),
        features=rng.exponential(1, (n, F)).astype(np.float32),
        place=np.concatenate([np.arange(1, each + 1) for each in size]).astype(np.int16),
        history=_ids(touched),
        history_category=(touched % 300).astype(np.uint16),
        age=rng.exponential(1000, touched.shape).astype(np.float32),
        labels=(rng.random(n) < 1 / PER_LIST).astype(np.uint8),
    )


def _popular(rng: np.random.Generator, size: int | tuple[int, int]) -> Array:
    return rng.zipf(1.3, size) % ITEMS


def _ids(numbers: Array) -> Array:
    return (numbers + 1).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
