"""One model being learned: a whole training step, on one screen (`Trainer.learn`)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models import compiled
from models.admission import resolve
from models.batch import CLICK, Array, Lesson, Lists, Shape, per_list
from models.dense import Dense
from models.embeddings import category_rows, item_rows
from models.encoding import Quantiles, rebinned
from models.graphs import Function, Recorded
from models.lately import follow
from models.lora import FACTORS, added, factors, merged, of_factors
from models.losses import DELAYED, total
from models.policy import Policy, learning
from models.ranker import (
    COUNTED,
    PLACES,
    Outputs,
    Weights,
    initial,
    of_rows,
    probabilities,
    scores,
    users,
)
from models.table import Table
from models.tensors import Batch, Vectors, Where, batch_of, moved, padded

ROW_RATE = 10.0
"""Rows learn at this many times the dense weights' rate: each of them sees few examples."""

DECAYED = {"encode", "wide", "deep1", "deep2", "deep3", *FACTORS}
"""Weights of what is put in fade where nothing teaches them; constants and scales keep theirs."""

SETTLED = 0.5
"""Share of a batch's items that must teach how probable a click is, for its loss to say how good that is."""


class Prediction(NamedTuple):
    """Of each item of some lists: ranking score (float32 [N]) and probability of each task ([N, T])."""

    score: Array
    p: Array


class Trainer:
    """Weights, their optimiser, and the steps on them.

    Parameters
    ----------
    shape
        Sizes.
    table
        Which item has which row; someone else changes it (`models.admission`).
    seed
        Of the initial weights and of the sample that the bins are taken from.
    device
        ``cpu``, ``cuda``, ``cuda:1``, ... or ``auto``: a GPU if there is one.
    learning_rate
        Of the dense weights (Adam).
    bfloat16
        Multiply in bfloat16 while training on a GPU.
    cuda_graphs
        Launch a step on a GPU as one graph, see `models.graphs`.
    delayed
        Loss of carts and purchases, a key of `models.losses.DELAYED`.
    policy
        How much learns, one of `models.policy.POLICIES`.

    Attributes
    ----------
    policy : Policy
    mode : str
        What it wants now: ``full``, ``sparse``, ``head`` or ``lora``.
    """

    def __init__(
        self,
        shape: Shape,
        table: Table,
        *,
        seed: int = 0,
        device: str = "auto",
        learning_rate: float = 0.0015,
        bfloat16: bool = False,
        cuda_graphs: bool = False,
        delayed: str = "naive",
        policy: str = "full",
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        rng = np.random.default_rng(seed)
        self.shape, self.table, self.device = shape, table, torch.device(device)
        self.learning_rate = learning_rate
        gpu = self.device.type == "cuda"
        self.bfloat16 = bfloat16 and gpu
        self._conversions = DELAYED[delayed]
        self._slopes: Function = self._compiled_loss
        if gpu:
            self._slopes = Recorded(self._loss) if cuda_graphs else self._loss
        self.items = item_rows(shape, rng, self.device)
        self.categories = category_rows(shape, rng, self.device)
        self.quantiles = Quantiles(shape.bins, rng)
        self._rng = rng
        start = initial(shape, rng)
        self._counted = {name: self._tensor(start.pop(name)) for name in COUNTED}
        self.policy = Policy(policy)
        if policy == "lora":
            start |= factors(start, rng)
        self._dense = Dense(start, DECAYED, self.device)
        self._obey()
        self.keep()

    @property
    def rests(self) -> bool:
        """Whether no dense weight learns now: then lists learned before have nothing to teach."""
        return not self._dense.learning

    @property
    def share(self) -> float:
        """Share of the dense weights that learn now."""
        return self._dense.share

    def learn(
        self,
        lists: Lists,
        learning_rate: float | None = None,
        lesson: Lesson | None = None,
        again: bool = False,
    ) -> float:
        """Take one step on some lists and return their loss before it.

        Parameters
        ----------
        lists
            What to learn from.
        learning_rate
            Instead of the trainer's own.
        lesson
            What is taught about probabilities (None: the labels as they are). The order is learned from all
            clicks; but a list that is here because of a click says nothing about how probable a click is.
        again
            Whether they were learned before. A row sees few examples and knows them by heart: shown the same
            ones again, dense weights would learn to trust it. So they learn then as if all rows were zero;
            and the level of clicks (`models.lately`), which is not of that time.

        Returns
        -------
        float
            NaN when the loss or the gradient was not finite; the step was not taken then.
        """
        rate = self.learning_rate if learning_rate is None else learning_rate
        batch = batch_of(lists, lesson, self.device)  # 1. to the device
        self._count_places(lists.place)
        where = None if again else self._where(lists)
        vectors = self._vectors(where, batch)  # 2. gather
        figures, *gradients = self._slopes((again, self.mode), *vectors, *batch)  # 3. forward and backward
        value, order, probability, norm = figures.tolist()
        if not np.isfinite(value + norm):
            return float("nan")
        if self._dense.learning:
            self._dense.step(gradients[0], norm, rate)  # 4. step
        if where is not None:
            self._step_rows(where, Vectors(*gradients[1:]), len(lists), ROW_RATE * rate)
            self._watch(order, probability, lists, lesson)
        if self.policy.mode(self._dense.steps) != self.mode:
            self._obey()
        return float(value)

    def _loss(self, how: tuple[bool, str], *given: Tensor) -> tuple[Tensor, ...]:
        """Figures of the loss, and its gradients: of dense weights, and of vectors unless `how` says again.

        Its arguments are those of `Vectors` and `Batch`; it has no effects, see `models.graphs`.
        """
        again, _ = how
        vectors, batch = _apart(given)
        flat = self._dense.leaf()
        leaves = [flat]
        if not again:
            vectors = Vectors(*(vector.detach().requires_grad_() for vector in vectors))
            leaves += vectors
        weights = self._taught(self._dense.learned(flat), again)
        rows = vectors.bias if again else self._of_rows(weights, vectors, batch)
        figures = total(weights, self._scores(weights, rows, batch), batch, self._conversions)
        gradients = torch.autograd.grad(figures[0], leaves, materialize_grads=True)
        return torch.stack([*figures, gradients[0].norm()]).detach(), *gradients

    def _compiled_loss(self, how: tuple[bool, str], *given: Tensor) -> tuple[Tensor, ...]:
        """The same by `models.compiled`."""
        again, _ = how
        vectors, batch = _apart(given)
        now = self._dense.now()
        known = None if again else vectors
        figures, found = compiled.total(self._taught(now, again), known, batch, self._conversions)
        gradient = self._dense.gradient(found | of_factors(now, found))
        ends = () if again else (found[name] for name in Vectors._fields)
        return torch.tensor([*figures, torch.linalg.vector_norm(gradient)]), gradient, *ends

    def _taught(self, dense: Weights, again: bool) -> dict[str, Tensor]:
        """The weights in a step's loss; of the levels, that of clicks alone, and none in lists of the past.

        Late carts and purchases are taught long after their impressions: the levels are others then.
        """
        level = torch.zeros_like(self._counted["lately"])
        if not again:
            level[0] = self._counted["lately"][0]
        return {**added(dense), **self._counted, "lately": level}

    def _step_rows(self, where: Where, gradients: Vectors, lists: int, rate: float) -> None:
        """Rows learn from what is theirs in the vectors' gradients: an item and its category the same."""
        n = len(where.item)
        listed, touched = gradients.item[:n], gradients.history[:lists].flatten(0, 1)
        vectors = lists * torch.cat([listed, touched])
        both = {"embedding": vectors, "bias": lists * gradients.bias[:n]}
        self.items.step(np.concatenate([where.item, where.history.ravel()]), both, rate)
        rows = np.concatenate([where.category, where.history_category.ravel()])
        self.categories.step(rows, {"category": vectors}, rate)

    def _watch(self, order: float, probability: float, lists: Lists, lesson: Lesson | None) -> None:
        """Tell the policy the losses of order and probability on new lists."""
        clicked = float(np.count_nonzero(per_list(lists.start, lists.labels & CLICK)))
        share = 1.0 if lesson is None else ((lesson.positive | lesson.negative) & CLICK > 0).mean()
        losses = order if clicked else np.nan, probability / share if share > SETTLED else np.nan
        self.policy.saw(*losses, (clicked, share * len(lists)))

    def follow(self, *what: Array) -> None:
        """Let the levels follow what came of predictions, see `models.lately.follow`."""
        level = follow(self.lately, *what)
        self._counted["lately"].copy_(self._tensor(level.astype(np.float32)))

    @property
    def lately(self) -> Array:
        """Level of each task in what is predicted now, [T]."""
        level: Array = self._counted["lately"].cpu().numpy().copy()
        return level

    def _obey(self) -> None:
        """Let learn what the policy wants to."""
        self.mode = self.policy.mode(self._dense.steps)
        self._dense.let_learn(learning(self.mode, self._dense.names))

    @torch.no_grad()
    def predict(self, lists: Lists) -> Prediction:
        """Score lists as they were shown: their places move the probabilities, not the score."""
        batch, n = batch_of(lists, None, self.device), len(lists.item)
        weights, vectors = added(self._dense.mean()) | self._counted, self._vectors(self._where(lists), batch)
        if self.device.type == "cpu":
            out = compiled.forward(weights, vectors, batch)
        else:
            out = self._scores(weights, self._of_rows(weights, vectors, batch), batch)
        return Prediction(*(a.float().cpu().numpy()[:n] for a in (out.score, probabilities(out))))

    def observe(self, features: Array) -> None:
        """See raw features [n, F], so that the bins fit them; the encoded function stays when bins move."""
        if not len(features) or not self.quantiles.add(features):
            return
        before, after = self._counted["edges"].cpu().numpy(), self.quantiles.edges()
        for weights in (self._dense.now(), self._dense.mean()):
            for name, array in rebinned(_copied(added(weights)), before, after).items():
                weights[name].copy_(self._tensor(array))
        self._counted["edges"].copy_(self._tensor(after))

    def dense(self) -> dict[str, Array]:
        """Dense weights by name (`models.ranker`), as they are served: the mean of the last steps; copied."""
        return added(self.parts())

    def parts(self) -> dict[str, Array]:
        """The same, with what is added to them apart (`models.lora`)."""
        return _copied(self._dense.mean() | self._counted)

    def rows(self) -> dict[str, Array]:
        """Row arrays ``embedding``, ``bias``, ``category``: shared on the CPU, copied from a GPU."""
        return self.items.arrays() | self.categories.arrays()

    def keep(self) -> None:
        """The model as it is now is good: `rollback` returns to it."""
        self._good = {name: array.clone() for name, array in self._counted.items()}
        self._dense.keep()
        self.items.keep()
        self.categories.keep()

    def rollback(self) -> None:
        """Return to what was good at the last `keep`; the sample of the bins stays."""
        for name, array in self._counted.items():
            array.copy_(self._good[name])
        self._dense.rollback()
        self._obey()
        self.items.rollback()
        self.categories.rollback()

    def state(self) -> dict[str, Array]:
        """Everything `load_state` needs, copied."""
        parts = {
            "dense": self._dense.state(),
            "counted": _copied(self._counted),
            "items": self.items.state(),
            "categories": self.categories.state(),
            "quantiles": self.quantiles.state(),
            "policy": self.policy.state(),
        }
        return {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}

    def load_state(self, state: dict[str, Array]) -> None:
        """Continue from `state`, which is good, also where another policy had learned it."""

        def part(prefix: str) -> dict[str, Array]:
            return {name[len(prefix) :]: v for name, v in state.items() if name.startswith(prefix)}

        for name, array in self._counted.items():
            array.copy_(torch.from_numpy(state["counted." + name].copy()))
        dense = part("dense.")
        self._dense.load_state(dense if self.policy.name == "lora" else merged(dense))
        self.items.load_state(part("items."))
        self.categories.load_state(part("categories."))
        self.quantiles.load_state(part("quantiles."))
        self.policy.load_state(part("policy."))
        self._obey()
        self.keep()

    def _where(self, lists: Lists) -> Where:
        """Rows of the lists' ids."""
        ids = np.concatenate([lists.item, lists.history.ravel()])
        rows, n = resolve(self.table.lookup(ids), ids, self.shape.cold), len(lists.item)
        return Where(
            rows[:n],
            rows[n:].reshape(lists.history.shape),
            lists.category.astype(np.int64),
            lists.history_category.astype(np.int64),
        )

    def _vectors(self, where: Where | None, batch: Batch) -> Vectors:
        """What the rows say of a batch; without rows, that nothing is known of any item."""
        if where is None:
            none, zeros = batch.x.new_empty(0), batch.x.new_zeros(len(batch.x))
            return Vectors(none, zeros, none)
        item, category, history, history_category = (
            padded(rows, len(column))
            for rows, column in (
                (where.item, batch.x), (where.category, batch.x),
                (where.history, batch.age), (where.history_category, batch.age),
            )
        )  # fmt: skip
        return Vectors(
            self.items.at("embedding", item) + self.categories.at("category", category),
            self.items.at("bias", item),
            self.items.at("embedding", history) + self.categories.at("category", history_category),
        )

    def _of_rows(self, w: Weights, vectors: Vectors, batch: Batch) -> Tensor:
        with self._precision():
            user = users(w, vectors.history, batch.age)
            return of_rows(w, vectors.item, vectors.bias, user, batch.of).float()

    def _scores(self, w: Weights, rows: Tensor, batch: Batch) -> Outputs:
        with self._precision():
            return Outputs(*(column.float() for column in scores(w, batch.x, rows, batch.place)))

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def _count_places(self, place: Array) -> None:
        """Update each place's share of what is shown at places, with a memory of about 100 batches."""
        shown = np.bincount(place[place > 0].clip(max=PLACES), minlength=PLACES + 1).astype(np.float32)
        if shown.any():
            share = self._counted["place_share"]
            share.lerp_(self._tensor(shown / shown.sum()), 0.01 if share.any() else 1.0)

    def _tensor(self, array: Array) -> Tensor:
        return moved(array, self.device)


def _apart(given: tuple[Tensor, ...]) -> tuple[Vectors, Batch]:
    """Arguments of a loss, which are tensors alone so that graphs can be recorded of it."""
    item, bias, history, *columns = given
    return Vectors(item, bias, history), Batch(*columns)


def _copied(weights: Weights) -> dict[str, Array]:
    return {name: w.detach().cpu().numpy().copy() for name, w in weights.items()}
