"""Lists trained on per second, one thread: train's own path, against a bare torch loop on the same batches.

Ours goes from messages to versions: decode, admit, predict before learning, join, train on new and
replayed lists, count, judge, publish every second of traffic. `step` is `Learner.learn` alone. The bare
loops train the same network as torch's manual has it: `nn.Embedding` and Adam, dense or sparse.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.batch import Lists, Shape
from models.learner import Learner
from models.losses import entire_space, listwise
from models.ranker import Outputs, forward, initial, users
from stream.checkpoint import Store
from stream.log import Records
from stream.settings import Settings, shape_of
from tests.bench.measure import Context, Figure, Spent, Watch, alternate, rates
from tests.bench.world import START_MS, World, drain, grow, new_train

RATE = 0.003

Step = tuple[Lists, tuple[Any, ...], dict[str, Any]]
"""What one step learns from, and the other arguments of `Learner.learn`."""


def run(context: Context) -> list[Figure]:
    """Lists and items per second."""
    torch.set_num_threads(1)
    world = grow(context.directory, context.seconds, context.visits)
    shape = shape_of(world.settings)
    until = START_MS + 1000 * context.size(2, 1)
    examples = [records for records in world.examples if records.timestamps[0] < until]
    store = Store(context.directory / "train")  # its snapshots are not the world's
    _, batches = _own(world, examples, store)
    spent = alternate(
        context.rounds,
        [
            lambda: _own(world, examples, store)[0],
            lambda: _steps(shape, batches),
            lambda: _bare(shape, batches, sparse=False),
            lambda: _bare(shape, batches, sparse=True),
        ],
    )
    lists = sum(len(b) for b, *_ in batches)
    ours, step, dense, sparse = spent
    return [
        *rates("messages to versions", "lists", lists, ours, "torch, Adam", dense),
        *rates("messages to versions", "lists", lists, ours, "torch, SparseAdam", sparse),
        *rates("messages to versions", "lists", lists, ours, "steps only", step),
        *rates("steps only", "lists", lists, step, "torch, SparseAdam", sparse),
        *rates(
            "messages to versions",
            "items",
            sum(len(b.item) for b, *_ in batches),
            ours,
            "torch, SparseAdam",
            sparse,
        ),
    ]


class _Recorder(Learner):
    """Keeps what it learns from."""

    def __init__(self, settings: Settings) -> None:
        graphs = Path(settings.checkpoints.path) / "graphs"
        super().__init__(shape_of(settings), device="cpu", learning_rate=RATE, graphs=graphs)
        self.seen: list[Step] = []

    def learn(self, lists: Lists, *how: Any, **named: Any) -> float:
        self.seen.append((lists, how, named))
        return super().learn(lists, *how, **named)


def _own(world: World, examples: list[Records], store: Store) -> tuple[Spent, list[Step]]:
    """Let a new train take in examples, a second of them at a time."""
    learner = _Recorder(world.settings)
    train = new_train(world.settings, store, learner)
    watch = Watch()
    for _, second in groupby(examples, lambda records: records.timestamps[0]):
        for records in second:
            now = records.timestamps[0] / 1000
            train.process(records, now, quiet=False)
        drain(train, now)
    return watch.spent(), learner.seen


def _steps(shape: Shape, steps: list[Step]) -> Spent:
    """The steps alone, with a row for every item that was shown twice."""
    learner = Learner(shape, device="cpu", learning_rate=RATE)
    learner.see(np.concatenate([lists.item for lists, *_ in steps]), {}, START_MS)
    watch = Watch()
    for lists, how, named in steps:
        learner.learn(lists, *how, **named)
    return watch.spent()


class _Network(nn.Module):
    """The ranker on `nn.Embedding`."""

    def __init__(self, shape: Shape, sparse: bool) -> None:
        super().__init__()
        start = initial(shape, np.random.default_rng(0))
        self.dense = nn.ParameterDict({name: torch.from_numpy(array) for name, array in start.items()})
        self.embedding = nn.Embedding(shape.rows, shape.width, sparse=sparse)
        self.bias = nn.Embedding(shape.rows, 1, sparse=sparse)
        self.category = nn.Embedding(shape.categories, shape.width, sparse=sparse)

    def forward(
        self, x: Tensor, item: Tensor, category: Tensor, history: Tensor, history_category: Tensor,
        age: Tensor, of: Tensor, place: Tensor,
    ) -> Outputs:  # fmt: skip
        w = dict(self.dense.items())
        taste = users(w, self.embedding(history) + self.category(history_category), age)
        vector = self.embedding(item) + self.category(category)
        return forward(w, x, vector, self.bias(item).squeeze(1), taste, of, place)


def _bare(shape: Shape, steps: list[Step], sparse: bool) -> Spent:
    """The loop that one writes first; ids are hashed to rows."""
    network = _Network(shape, sparse)
    tables = [p for name, p in network.named_parameters() if not name.startswith("dense")]
    optimisers: list[torch.optim.Optimizer] = (
        [torch.optim.Adam(network.dense.parameters(), RATE), torch.optim.SparseAdam(tables, RATE)]
        if sparse
        else [torch.optim.Adam(network.parameters(), RATE)]
    )
    watch = Watch()
    for lists, *_ in steps:
        of = np.repeat(np.arange(len(lists)), np.diff(lists.start))
        rows = np.uint64(shape.rows)
        arrays = (
            lists.features, (lists.item % rows).astype(np.int64), lists.category.astype(np.int64),
            (lists.history % rows).astype(np.int64), lists.history_category.astype(np.int64), lists.age, of,
            lists.place.astype(np.int64),
        )  # fmt: skip
        labels = torch.from_numpy(lists.labels.astype(np.int64))
        out = network(*map(torch.from_numpy, arrays))
        clicked = (labels & 1) > 0
        loss = listwise(out.score, clicked, torch.from_numpy(of), len(lists))
        loss = loss + entire_space(out, labels, ~labels).mean()
        for optimiser in optimisers:
            optimiser.zero_grad()
        torch.autograd.backward(loss)
        for optimiser in optimisers:
            optimiser.step()
    return watch.spent()
