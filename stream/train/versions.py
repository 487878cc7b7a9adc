"""Versions of the model: judged, published as small deltas, named whole now and then.

A version is (epoch, n). Every start of train begins an epoch with a snapshot, n = 0; each delta adds
one to n. Deltas carry whole values, so a snapshot taken right after delta n serves whoever has n.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import numpy as np

from models import gate
from models.batch import Array, Lists
from models.gate import NOTHING, Verdict
from models.learner import Learner
from models.quality import list_losses, order_losses
from models.served import Served
from stream.checkpoint import Store
from stream.errors import Fatal, Retryable
from stream.log import Output
from stream.messages import ModelUpdate, encode_binary
from stream.train.buffer import Buffer

BUDGET = 880_000
"""Bytes of a delta: with its envelope it stays below the 1 MB that brokers take by default."""

SNAPSHOTS = 3
"""Fresh snapshots kept: a rank that has just read the name of one still has time to load it."""

SAMPLE = 64
"""Lists of each kind that the gate looks at: the newest judged ones, and trusted older ones."""

REFUSED = 256
"""Lists of a refused version that are looked at when its successors are refused again and again."""

PATIENCE = 5
"""Versions turned away in a row, after which the world is taken to have changed, not the data to be bad."""

UNIT = "train"
logger = logging.getLogger(__name__)


class Gate:
    """Compares the model with the last good one, on lists that were judged before it learned more.

    Newest and older lists are compared apart: what poisons the newest labels makes the model fit them. And on
    both together, what accepted versions have cost is added until others make up for it: else harm could come
    by degrees, each version being a little worse than the one before.

    A gate that never gave way would freeze the model when the world changes at once: what is new looks
    bad on everything old. After `PATIENCE` objections it does, and lists from before no longer speak; but
    only to a model that explains what the one refused before it had learned, and it has not, better than the
    last good one does. Else it is not the world that has changed.
    """

    def __init__(self, learner: Learner, buffer: Buffer, rng: np.random.Generator) -> None:
        self._learner, self._buffer, self._rng = learner, buffer, rng
        self._since = self._objections = 0
        self._refused = np.zeros(0, np.int64)
        self._owed = NOTHING
        self.keep()

    def keep(self) -> None:
        """The model as it is now is good; the learner keeps it too."""
        self._learner.keep()
        newest = self._buffer.newest(SAMPLE, self._since)
        older = self._buffer.trusted(SAMPLE, self._rng, self._since)
        n, both = len(newest), len(newest) + len(older)
        self._parts = slice(0, n), slice(n, both), slice(0, both)
        self._numbers = np.concatenate([newest, older, self._refused])
        self._lists: Lists = self._buffer.gather(self._numbers)
        self._unseen = self._buffer.column("unseen", self._numbers)
        self._known = self._buffer.known(self._numbers)
        self._before = self._losses()

    def judge(self, learned: Array) -> Verdict:
        """Whether the model may be published, after it `learned` these lists; else the first objection."""
        after = self._losses()
        # the order of what nobody saw is one label, the items of all others have one each
        labels = np.where(self._unseen, 1, np.diff(self._lists.start))
        judged = [
            gate.judge(self._before[part], after[part], labels[part], owed)
            for part, owed in zip(self._parts, (NOTHING, NOTHING, self._owed), strict=True)
        ]
        verdicts, owed = [verdict for verdict, _ in judged], judged[-1][1]
        verdict = next((verdict for verdict in verdicts if not verdict.accepted), verdicts[0])
        self._objections = 0 if verdict.accepted else self._objections + 1
        if self._objections > PATIENCE and self._knows_better(after, learned):
            self._objections, self._since, owed = 0, self._buffer.head, NOTHING
            verdict = verdict._replace(accepted=True, reason="worse too often: the world has changed")
        self._owed = (owed if verdict.accepted else self._owed).faded()
        self._refused = learned[:0] if verdict.accepted else learned[-REFUSED:]
        return verdict

    def _losses(self) -> Array:
        if not len(self._lists):
            return np.zeros(0)
        start, labels, guess = self._lists.start, self._lists.labels, self._learner.predict(self._lists)
        # what nobody saw has no probabilities, only an order; what may yet be bought speaks of clicks only
        order = order_losses(start, guess.score, labels)
        return np.where(self._unseen, order, list_losses(start, guess.p, labels, self._known))

    def _knows_better(self, after: Array, learned: Array) -> bool:
        """Whether losses on refused lists, but for those `learned` since, are less than the good model's."""
        refused = slice(self._parts[-1].stop, None)
        other = ~np.isin(self._numbers[refused], learned)
        gain = (self._before[refused] - after[refused])[other]
        return bool(len(gain) and np.isfinite(after).all() and gain.mean() > 0)


class Versions:
    """Publishes one learner's versions, under an epoch that nobody else has.

    Parameters
    ----------
    learner
        Its model is what is published.
    store
        Where epochs are claimed and snapshots are put.
    frozen
        The frozen slot's snapshot, if there is one already.

    Attributes
    ----------
    epoch, n
        The newest version.
    size
        Bytes of what was made last: a delta, or a snapshot.
    rows
        Item rows in the last delta.
    frozen : ModelUpdate or None
    shadow : Served or None
        The frozen model, to predict with.

    Raises
    ------
    Retryable
        When the store cannot be written.
    """

    def __init__(self, learner: Learner, store: Store, frozen: ModelUpdate | None) -> None:
        self._learner, self._store = learner, store
        self.epoch, self.n, self.size, self.rows = store.claim(UNIT), 0, 0, 0
        self.shadow = self._load(frozen)
        self.frozen = frozen if self.shadow is not None else None

    def delta(self, through: int) -> Output:
        """The next version, with what changed since the last; `through` is the event time learned up to, ms.

        Raises
        ------
        Fatal
            When another process has begun a later epoch: this one must do no harm.
        """
        newest = self._store.newest_epoch(UNIT)
        if newest != self.epoch:
            raise Fatal(f"another train took over: its epoch {newest} is newer than ours, {self.epoch}")
        dirty = self._learner.trainer.items.dirty
        before = len(dirty)
        payload = self._learner.delta(BUDGET)
        self.n, self.size, self.rows = self.n + 1, len(payload), before - len(dirty)
        return message(self._update("fresh", through, payload=payload))

    def snapshot(self, through: int) -> Output:
        """Name the whole model at the newest version; older files are removed."""
        update = self._put("fresh", through, self._learner.snapshot())
        self._store.prune("fresh-", SNAPSHOTS)
        return message(update)

    def freeze(self, through: int) -> Output:
        """Keep the model as it is for the frozen slot; its file stays until another is frozen."""
        self.frozen = self._put("frozen", through, self._learner.frozen())
        self._store.prune("frozen-", 1)
        self.shadow = self._load(self.frozen)
        return message(self.frozen)

    def _load(self, frozen: ModelUpdate | None) -> Served | None:
        """The frozen model; None when its file is lost, for then the frozen arm starts anew."""
        if frozen is None or frozen.uri is None:
            return None
        try:
            return Served.load(self._store.get(frozen.uri, frozen.checksum), self._learner.shape)
        except Retryable as error:
            logger.error("the frozen model is lost, another will be frozen: %s", error)
            return None

    def _put(self, slot: str, through: int, data: bytes) -> ModelUpdate:
        self.size = len(data)
        name = f"{slot}-{self.epoch:08d}-{self.n:08d}.model"
        return self._update(slot, through, uri=name, checksum=self._store.put(name, data))

    def _update(self, slot: str, through: int, **rest: Any) -> ModelUpdate:
        return ModelUpdate(slot=slot, epoch=self.epoch, n=self.n, trained_through=through, **rest)


def message(update: ModelUpdate) -> Output:
    """One record of topic `model`."""
    return Output("model", None, encode_binary(update), partition=0)


def to_state(update: ModelUpdate | None) -> Any:
    """Plain data for a checkpoint."""
    return None if update is None else msgspec.to_builtins(update)


def from_state(state: Any) -> ModelUpdate | None:
    """Read what `to_state` wrote."""
    return None if state is None else msgspec.convert(state, ModelUpdate)
