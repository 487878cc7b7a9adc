"""Everything that is learned and counted, behind one door: what the train role calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from models.admission import Admission, resolve
from models.batch import CONTEXTS, Array, F, Lesson, Lists, Shape
from models.columns import Column, pack_all, unpack_all
from models.covisitation import Covisitation
from models.delta import Dirty, Group, Owners, changed, snapshot_delta, take_delta
from models.export import cached
from models.lagged import Older, Weights, copy_weights, said_by
from models.names import Names, by_id
from models.served import PRIOR
from models.statistics import Statistics, buckets_in
from models.table import Table
from models.trainer import Prediction, Trainer

TRENDING = 500
"""Items that are shipped as trending."""


class Learner:
    """The model and the counts of one train process.

    Ids must have been shown to `see` before they are counted or learned from.

    Parameters
    ----------
    shape
        Sizes and half-lives.
    seed
        Of the initial weights.
    device
        ``auto``, ``cpu``, ``cuda``, ...
    learning_rate
        Of the dense weights.
    bfloat16
        Multiply in bfloat16 while training on a GPU.
    cuda_graphs
        Launch a step on a GPU as one graph, see `models.graphs`.
    delayed
        Loss of carts and purchases, a key of `models.losses.DELAYED`.
    policy
        How much learns, one of `models.policy.POLICIES`.
    admit_after
        Sightings that earn an item a row of its own.
    graphs
        Folder in which the scoring graph is kept from run to run; None exports it in every run.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        seed: int = 0,
        device: str = "auto",
        learning_rate: float = 0.0015,
        bfloat16: bool = False,
        cuda_graphs: bool = False,
        delayed: str = "naive",
        policy: str = "full",
        admit_after: int = 2,
        graphs: Path | None = None,
    ) -> None:
        self.shape = shape
        self.table = Table(shape.rows)
        self.trainer = Trainer(
            shape,
            self.table,
            seed=seed,
            device=device,
            learning_rate=learning_rate,
            bfloat16=bfloat16,
            cuda_graphs=cuda_graphs,
            delayed=delayed,
            policy=policy,
        )
        self.admission = Admission(shape, self.table, admit_after=admit_after)
        self.names = Names(waiting=2 * shape.rows)
        half_lives = shape.half_life_short, shape.half_life_long
        self.items = Statistics(shape.rows, *half_lives)
        self.categories = Statistics(shape.categories, *half_lives)
        self.contexts = Statistics(shape.categories, *half_lives)
        self.pairs = Covisitation(
            self.table,
            shape.neighbours,
            pair_half_life=shape.pair_half_life,
            half_life=shape.near_half_life,
        )
        self.through = 0
        self._owners = Dirty(shape.rows)
        self._sent: dict[str, Array] = {}
        self._graphs = graphs
        self._graph = b""

    def see(self, ids: Array, names: Mapping[int, str], ts_ms: int) -> None:
        """Ids (uint64 [n]) are about to be used: count sightings, give rows, learn names.

        Parameters
        ----------
        ids
            Repeated as often as they were seen.
        names
            By id, as far as they are new.
        ts_ms
            Newest event time.
        """
        self.through = max(self.through, ts_ms)
        known = np.fromiter(names, np.uint64, len(names))
        named = self.names.hear(names, by_id(known, self.table.lookup(known)))
        admitted = self.admission.admit(ids)
        evicted = admitted.evicted
        self.names.take_back(evicted.tolist(), admitted.former.tolist())
        self.names.give(admitted.ids.tolist(), admitted.rows.tolist())
        self.items.clear(evicted)
        self.pairs.clear(evicted)
        cold = resolve(np.full(len(admitted.ids), -1), admitted.ids, self.shape.cold)
        self.trainer.items.copy(cold, admitted.rows)
        self._owners.mark(np.concatenate([evicted, admitted.rows]))
        # an owner that is told again starts at zero over there: everything has to follow
        for dirty in (self._owners, self.trainer.items.dirty, self.items.dirty, self.pairs.dirty):
            dirty.mark(np.array(named, np.int64))

    def observe(self, features: Array) -> None:
        """See raw features (float32 [n, F]), so that the bins fit them."""
        self.trainer.observe(features)

    def predict(self, lists: Lists) -> Prediction:
        """Score lists with the newest weights."""
        return self.trainer.predict(lists)

    def predict_with(self, older: Older, lists: Lists) -> Prediction:
        """Score lists with an older copy of the model."""
        return Prediction(*said_by(older, lists, self.shape.cold))

    def learn(
        self,
        lists: Lists,
        learning_rate: float | None = None,
        lesson: Lesson | None = None,
        again: bool = False,
    ) -> float:
        """Take one step; returns the loss before it, NaN where it was not finite (no step then).

        Parameters are those of `Trainer.learn`.
        """
        return self.trainer.learn(lists, learning_rate, lesson, again)

    def count_lists(self, items: Array, categories: Array, ts_ms: Array, context: Array) -> None:
        """Count impressions: uint64, uint16, int64 (ms) [N]; the visitors' contexts: uint64 [N, X]."""
        self._count_through(ts_ms)
        self.items.count_impressions(self.table.lookup(items), ts_ms)
        self.categories.count_impressions(categories.astype(np.int64), ts_ms)
        for buckets in self._in_contexts(context, categories):
            self.contexts.count_impressions(buckets, ts_ms)

    def count_acts(
        self, items: Array, categories: Array, tasks: Array, listed: Array, ts_ms: Array,
        history: Array, age: Array, context: Array,
    ) -> None:  # fmt: skip
        """Count clicks, carts and purchases, and what was touched before them.

        Parameters
        ----------
        items, categories, tasks, listed, ts_ms : uint64, uint16, uint8, uint8, int64 [K]
            As the ``act_`` columns of examples.
        history, age : uint64, float32 [K, H]
        context : uint64 [K, X]
        """
        self._count_through(ts_ms)
        self.items.count_acts(self.table.lookup(items), tasks, listed, ts_ms)
        self.categories.count_acts(categories.astype(np.int64), tasks, listed, ts_ms)
        for buckets in self._in_contexts(context, categories):
            self.contexts.count_acts(buckets, tasks, listed, ts_ms)
        self.pairs.count(items, ts_ms, history, age)

    def delta(self, budget_bytes: int) -> bytes:
        """What changed since the last call, for `Served.apply`; what does not fit waits.

        Raises
        ------
        ValueError
            When even the dense weights exceed the budget.
        """
        groups = self._groups()
        self.pairs.refresh(budget_bytes // groups[-1].row_bytes)
        dense = self._dense()
        news = changed(dense, self._sent)
        delta = take_delta(self.shape.schema, news, self._owner(), groups, self._lists(), budget_bytes)
        self._sent = dense
        return delta

    def snapshot(self) -> bytes:
        """Everything, for `Served.load`; deltas after it go on from it."""
        self.pairs.refresh()
        return snapshot_delta(
            self.shape.schema, self._dense(), self._owner(), self._groups(), self._lists(), self.graph()
        )

    def frozen(self) -> bytes:
        """A snapshot for those who keep it as it is."""
        return self.snapshot()

    def weights(self) -> Weights:
        """A copy of what predicting needs, for `models.lagged`."""
        return copy_weights(self.shape, self.table.ids, self.trainer.rows(), self.trainer.dense())

    def graph(self) -> bytes:
        """The scoring graph; the first call may take seconds."""
        self._graph = self._graph or cached(self.shape, self._graphs)
        return self._graph

    def keep(self) -> None:
        """The weights are good as they are."""
        self.trainer.keep()

    def rollback(self) -> None:
        """Return to the weights of the last `keep`; counts, rows and bins' samples stay."""
        self.trainer.rollback()

    def state(self) -> bytes:
        """Everything `restore` needs to go on exactly from here."""
        parts = {name: pack_all(part.state()) for name, part in self._parts().items()}
        names, waiting = self.names.of_row, self.names.waiting
        return msgspec.msgpack.encode(
            _State(self.shape.schema, parts, pack_all({"ids": self.table.ids}), names, waiting, self.through)
        )

    def restore(self, data: bytes) -> None:
        """Continue from `state`; the next thing to publish is a snapshot.

        Raises
        ------
        ValueError
            When the bytes are damaged, or of another shape.
        """
        try:
            state = msgspec.msgpack.decode(data, type=_State)
            if state.schema != self.shape.schema:
                raise ValueError(f"schema {state.schema:08x}, but this process has {self.shape.schema:08x}")
            parts = {name: unpack_all(columns) for name, columns in state.parts.items()}
            ids = unpack_all(state.table)["ids"]
            self.table.put(ids.copy(), np.arange(len(ids)))
            for name, part in self._parts().items():
                part.load_state(parts[name])
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, ValueError) as error:
            raise ValueError(f"not a state of this learner: {error}") from None
        self.names.load(state.names, state.waiting)
        self.through = state.through
        self._sent = {}

    def _parts(self) -> dict[str, Trainer | Admission | Statistics | Covisitation]:
        return {
            "trainer": self.trainer,
            "admission": self.admission,
            "items": self.items,
            "categories": self.categories,
            "contexts": self.contexts,
            "pairs": self.pairs,
        }

    def _in_contexts(self, context: Array, categories: Array) -> list[Array]:
        """Where categories are counted (int64 [n], -1 nowhere), by each part of contexts (uint64 [n, X])."""
        told = context[:, context.any(0)].T.copy()
        return [buckets_in(part, categories.astype(np.int64), self.shape.categories) for part in told]

    def _count_through(self, ts_ms: Array) -> None:
        self.through = max(self.through, int(ts_ms.max(initial=0)))

    def _dense(self) -> dict[str, Array]:
        return self.trainer.parts() | {PRIOR: self.items.prior()}

    def _owner(self) -> Owners:
        return Owners(self.table.ids, self.names.of_row, self._owners)

    def _lists(self) -> dict[str, Array]:
        return {"trending": self.table.ids[self.items.trending(self.through, TRENDING, self.table.ids)]}

    def _groups(self) -> list[Group]:
        items, categories, contexts, pairs = self.items, self.categories, self.contexts, self.pairs
        learned = self.trainer.rows()
        return [
            Group({name: learned[name] for name in ("embedding", "bias")}, self.trainer.items.dirty),
            Group({"category": learned["category"]}, self.trainer.categories.dirty, owned=False),
            Group(
                {"stats": items.stats, "stats_at": items.stats_at, "first_seen": items.first_seen},
                items.dirty,
            ),
            Group(
                {"category_stats": categories.stats, "category_stats_at": categories.stats_at},
                categories.dirty,
                owned=False,
            ),
            Group(
                {"context_stats": contexts.stats, "context_stats_at": contexts.stats_at},
                contexts.dirty,
                owned=False,
            ),
            Group(pairs.published(), pairs.dirty),
        ]


def compile_kernels(shape: Shape) -> None:
    """Compile, or load from the cache, what such a learner runs: on a small one that is thrown away."""
    learner = Learner(replace(shape, rows=2 * shape.cold), device="cpu")
    ids, ts = np.array([70, 80], np.uint64), np.array([1, 2], np.int64)
    bucket, flag = np.ones(2, np.uint16), np.ones(2, np.uint8)
    history = np.full((2, shape.history), 70, np.uint64)
    for _ in range(learner.admission.admit_after):
        learner.see(ids, {}, 1)
    context = np.full((2, CONTEXTS), 70, np.uint64)
    learner.count_lists(ids, bucket, ts, context)
    learner.count_acts(ids, bucket, flag, flag, ts, history, np.zeros(history.shape, np.float32), context)
    learner.pairs.refresh()
    learner.items.trending(2, 1, learner.table.ids)
    features, place = np.zeros((2, F), np.float32), np.zeros(2, np.int16)
    one, categories = history[:1], np.ones((1, shape.history), np.uint16)
    age = np.zeros(one.shape, np.float32)
    learner.learn(Lists(np.array([0, 2]), ids, bucket, features, place, one, categories, age, flag))


class _State(msgspec.Struct, array_like=True, frozen=True):
    schema: int
    parts: dict[str, dict[str, Column]]
    table: dict[str, Column]
    names: dict[int, str]
    waiting: dict[int, str]
    through: int
