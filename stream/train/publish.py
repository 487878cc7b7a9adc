"""From what was learned to what ranks use: the gate, deltas, snapshots, and the frozen model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from models.batch import Array
from models.gate import Verdict
from models.learner import Learner
from stream.checkpoint import Store
from stream.counts import Counts
from stream.errors import Retryable
from stream.grouping import Column
from stream.log import Output
from stream.messages import encode_json
from stream.settings import Settings
from stream.train import measure
from stream.train.buffer import Buffer
from stream.train.streamtime import StreamTime
from stream.train.versions import Gate, Versions, from_state, message, to_state

NAMED = 10_000
"""Lists that a dead letter names at most."""

Label = tuple[int, int]
"""Partition, and broker time in ms."""

logger = logging.getLogger(__name__)


class Publisher:
    """Judges what the learner has learned, publishes it or takes it back.

    Parameters
    ----------
    settings, store, learner, buffer, counts, time
        The session's.
    partition
        Whose open block the rows about versions belong to.
    state
        What `state` returned earlier, or None.

    Attributes
    ----------
    changed
        Something was learned or counted since the last version.
    checkpoint_due
        A snapshot was named: now is the time for a checkpoint, which then holds that very version.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        learner: Learner,
        buffer: Buffer,
        counts: Counts,
        time: StreamTime,
        partition: int,
        state: Mapping[str, Any] | None,
    ) -> None:
        state = state or {"frozen": None, "began": 0, "through": 0, "labels": np.zeros((0, 2), np.int64)}
        self._settings, self._learner, self._buffer = settings, learner, buffer
        self._counts, self._time, self._partition = counts, time, partition
        self._began, self._through = state["began"], state["through"]
        self._learned: list[Array] = []
        self._labels: list[Label] = [(p, ts) for p, ts in state["labels"].tolist()]
        self._published: list[Label] = []
        self.changed = self.checkpoint_due = False
        self.versions = Versions(learner, store, from_state(state["frozen"]))
        # each epoch draws anew, so that what is drawn here needs no place in checkpoints
        self._gate = Gate(learner, buffer, np.random.default_rng([settings.train.seed, self.versions.epoch]))
        self._pending = [self.versions.snapshot(self._through)]
        if self.versions.frozen is not None:
            self._pending.append(message(self.versions.frozen))
        self._now = self._published_at = 0.0
        self._snapshot_at: float | None = None
        self._snapshot_n = self._since_snapshot = 0

    def arrived(self, amount: int) -> None:
        """So many lists, clicks, carts and purchases were taken in and counted."""
        self._since_snapshot += amount
        self.changed = True

    def learned(self, numbers: Array, through: int, labels: list[Label]) -> None:
        """The learner took a step on these lists and labels; it knows event time up to `through` (ms)."""
        self._learned.append(numbers)
        self._labels += labels
        self._through = max(self._through, through)
        self.changed = True

    def publish(self, now: float) -> list[Output]:
        """A version of what changed; then, when they are due, the frozen model and a snapshot."""
        self._now = now
        if self._snapshot_at is None:
            self._snapshot_at = now
        outputs: list[Output] = []
        if self.changed:
            lists = sum(len(numbers) for numbers in self._learned)
            verdict = self.judge()
            # also after a rejection: what was counted is news, the weights are the last good ones
            outputs.append(self.versions.delta(self._through))
            self._count("published", lists if verdict.accepted else 0, verdict, self.versions.rows)
            self._published, self._labels = self._published + self._labels, []
            self._published_at, self.changed = now, False
            self._began = self._began or self._time.ms
        # nothing was learned since the delta: what is named whole now is that very version
        if self._freeze_due():
            outputs += self._name(self.versions.freeze)
        if self._snapshot_due() and (named := self._name(self.versions.snapshot)):
            outputs += named
            self._snapshot_at, self._snapshot_n, self._since_snapshot = now, self.versions.n, 0
        outputs, self._pending = self._pending + outputs, []
        return outputs

    def judge(self) -> Verdict:
        """Let the gate decide on what was learned since it last did; if it objects, go back.

        Lists that have settled are set aside then; those that have not are learned from when they do.
        """
        if not self._learned:
            return Verdict(True, "nothing learned", 0.0, 0.0, 0.0)
        numbers = np.concatenate(self._learned)
        verdict = self._gate.judge(numbers)
        if not verdict.accepted:
            self._learner.rollback()
            self._labels = []
            self._count("rejected", len(numbers), verdict)
            # the others still wait for their labels: without them, nothing would say how probable a click
            # is when they are due, the next versions would be worse for it, and turned away in their turn
            self.set_aside(np.unique(numbers[self._buffer.done(numbers)]), verdict._asdict())
        self._learned = []
        self._gate.keep()
        return verdict

    def set_aside(self, numbers: Array, why: Mapping[str, Any]) -> None:
        """Never learn from these lists again; a dead letter says which, and why (its ``reason``)."""
        self._buffer.set_aside(numbers)
        version = {"epoch": self.versions.epoch, "n": self.versions.n + 1}
        logger.error("%d lists set aside before version %s: %s", len(numbers), version, why)
        named = [self._buffer.column(c, numbers[:NAMED]).tolist() for c in ("partition", "offset")]
        value = encode_json(
            {**version, **why, "count": len(numbers), "lists": list(zip(*named, strict=True))}
        )
        headers = {"reason": why["reason"], "role": measure.ROLE, "time": str(int(self._now * 1000))}
        encoded = tuple((name, text.encode()) for name, text in headers.items())
        self._pending.append(Output("dead-letters", b"set-aside", value, headers=encoded))

    def settled(self, now: float) -> None:
        """What was returned is with the broker: labels in a published version count as learned now."""
        labels, self._published = self._published, []
        if labels:
            partition, broker_ts = (np.array(column, np.int64) for column in zip(*labels, strict=True))
            measure.count_learned(self._counts, partition, broker_ts, now)

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        self.checkpoint_due = False
        labels = np.array(self._labels, np.int64).reshape(-1, 2)
        frozen = to_state(self.versions.frozen)
        return {"frozen": frozen, "began": self._began, "through": self._through, "labels": labels}

    def _freeze_due(self) -> bool:
        wait = int(self._settings.train.frozen_after_s * 1000)
        return self.versions.frozen is None and self._began > 0 and self._time.ms >= self._began + wait

    def _snapshot_due(self) -> bool:
        waited = self._now - (self._snapshot_at or 0.0) >= self._settings.train.snapshot_s
        enough = self._since_snapshot >= self._settings.checkpoints.events
        return self.versions.n > self._snapshot_n and (waited or enough)

    def _name(self, make: Callable[[int], Output]) -> list[Output]:
        """Write a snapshot and name it; when the disk refuses, try again another time."""
        try:
            output = make(self._through)
        except Retryable as error:
            logger.warning("no snapshot of version %d: %s", self.versions.n, error)
            unsaved = (self._time.ms // 1000, "unsaved", "", 1)
            measure.count_health(self._counts, self._partition, [unsaved])
            return []
        self._count("snapshot", 0, None)
        self.checkpoint_due = True
        return [output]

    def _count(self, decision: str, lists: int, verdict: Verdict | None, rows: int = 0) -> None:
        n = self.versions.n + (decision == "rejected")
        dims: dict[str, Column] = {
            "second": self._time.ms // 1000,
            "epoch": self.versions.epoch,
            "n": n,
            "decision": decision,
        }
        sums: dict[str, float] = {"lists": lists, "rows": rows}
        if decision != "rejected":
            sums["bytes"] = self.versions.size
        if verdict is not None:
            sums |= {"loss_before": verdict.before, "loss_after": verdict.after}
            sums["seconds"] = self._now - self._published_at if self._published_at else 0.0
        self._counts.add(self._partition, "models", dims, {k: np.nan_to_num(v) for k, v in sums.items()})
