"""A run of train in virtual time whose input or learner can be poisoned, and what ranks serve meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from models.batch import Array, Lists
from models.learner import Learner
from models.quality import Histogram, auc, log_loss
from models.served import Served
from models.trainer import Prediction
from stream.checkpoint import Store
from stream.clickhouse import Store as ClickHouse
from stream.log import Output
from stream.memory import MemoryLog
from stream.messages import CUBES, Outcomes, decode_model, decode_outcomes
from stream.monitor.rows import together
from stream.monitor.watch import Watch
from stream.runner import Runner
from stream.settings import Checkpoints, Kafka, Settings, Train, shape_of
from stream.train.role import Train as TrainRole
from stream.train.session import NEWEST, Session
from tests.stream.test_counts import rows
from tests.stream.train.synthetic import T0, World

PARTITIONS = 4
STEP_S = 0.5
LISTS = 8
"""Shown per step and partition."""
SETTINGS = Settings(
    kafka=Kafka(partitions=PARTITIONS),
    train=Train(
        rows=2048, width=8, hidden=16, buffer_lists=20_000, replay=1,
        click_wait_s=2.0, evaluate_after_s=4.0, device="cpu",
    ),
)  # fmt: skip

Spoil = Callable[[bytes], bytes]


class Version(NamedTuple):
    """One version that ranks serve: since when (s), and the click loss to expect of it (nats)."""

    second: float
    loss: float


class Run:
    """Worlds alike, one per partition, a train role on their lists, and a rank that follows its deltas.

    Parameters
    ----------
    path
        For checkpoints.
    make
        Makes the learner.

    Attributes
    ----------
    versions
        Everything that was served. The loss is that to expect on lists that nobody learns from.
    """

    def __init__(self, path: Path, make: Callable[[Settings], Learner]) -> None:
        self.settings = msgspec.structs.replace(SETTINGS, checkpoints=Checkpoints(path=str(path)))
        self.shape, self.now = shape_of(self.settings), T0 / 1000
        self.store = Store(path)
        counts = {"examples": PARTITIONS, "outcomes": PARTITIONS, "model": 1, "dead-letters": 1}
        self.log = MemoryLog(counts, lambda: self.now)
        self.worlds = [World(self.shape, seed=p, partition=p) for p in range(PARTITIONS + 1)]
        for world in self.worlds:
            world.appeal = self.worlds[0].appeal
        self.role = TrainRole(self.settings, self.store, make=make)
        self.runner = Runner(self.role, self.log, self.store, self.settings, lambda: self.now)
        self.versions: list[Version] = []
        self._source = self.log.broadcast_source("model", {})
        self._served: Served | None = None
        unseen = self.worlds.pop()
        self._lists: Lists = unseen.lists(400)
        self._chance = unseen.chances(self._lists)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self.now - T0 / 1000

    @property
    def session(self) -> Session:
        assert self.role.session is not None
        return self.role.session

    def live(self, seconds: float, flip: int | None = None, spoil: Spoil | None = None) -> None:
        """Go on; in partition `flip` visitors click on what nobody likes; `spoil` changes messages of one."""
        for _ in range(round(seconds / STEP_S)):
            self.now += STEP_S
            sink = self.log.sink()
            for p, world in enumerate(self.worlds):
                value = world.step(LISTS, int(self.now * 1000), flip=p == flip)
                sink.publish(Output("examples", None, spoil(value) if spoil and p == 0 else value, p))
            sink.flush()
            self.runner.once()
            self._follow()

    def loss(self, predict: Callable[[Lists], Prediction]) -> float:
        """Click loss (nats) to expect of a model, by what visitors truly like."""
        p, truth = predict(self._lists).p[:, 0], self._chance
        no = np.zeros(len(p), np.bool_)
        return float((truth * log_loss(p, ~no) + (1 - truth) * log_loss(p, no)).mean())

    def usual(self, first: float, last: float) -> float:
        """Median loss of what was served within these seconds."""
        return float(np.median([v.loss for v in self.versions if first <= v.second < last]))

    def longest_bad(self, limit: float, first: float, last: float) -> float:
        """Longest time (s) that versions with a loss above `limit` were served without a break."""
        span = [v for v in self.versions if first <= v.second < last]
        ends = [*(v.second for v in span[1:]), last]
        served = [(v.loss > limit, end - v.second) for v, end in zip(span, ends, strict=True)]
        runs = groupby(served, key=lambda one: one[0])
        return max((sum(s for _, s in run) for bad, run in runs if bad), default=0.0)

    def outcomes(self) -> list[Outcomes]:
        return [decode_outcomes(o.value or b"") for o in self.log.outputs("outcomes")]

    def health(self) -> Counter[str]:
        columns = [*CUBES["health"].dims, "count"]
        total: Counter[str] = Counter()
        for key, sums in rows(self.outcomes(), "health").items():
            row = dict(zip(columns, (*key, *sums), strict=True))
            total[row["counter"]] += int(row["count"])
        return total

    def decisions(self) -> Counter[str]:
        where = list(CUBES["models"].dims).index("decision")
        return Counter(key[where] for key in rows(self.outcomes(), "models"))

    def quality(self, first: float, last: float) -> tuple[float, float]:
        """Prequential AUC and log loss (nats) of clicks on lists shown within these seconds."""
        sums: dict[int, Array] = {}
        for (second, task, lag, at), row in rows(self.outcomes(), "quality").items():
            if (task, lag) == ("click", NEWEST) and first <= second - T0 / 1000 < last:
                sums[at] = sums.get(at, 0) + np.array(row)
        index = np.array(sorted(sums))
        count, positives, predicted, loss = np.array([sums[b] for b in index.tolist()]).T
        return auc(Histogram(index, count, positives, predicted, loss)), float(loss.sum() / count.sum())

    def _follow(self) -> None:
        for records in self._source.poll(1000, 0.0):
            for update in (decode_model(value or b"") for value in records.values):
                if update.slot == "fresh" and self._served is None:
                    snapshot = self.store.get(update.uri or "", update.checksum)
                    self._served = Served.load(snapshot, self.shape)
                elif update.slot == "fresh" and update.payload is not None and self._served is not None:
                    self._served.apply(update.payload)
                    predict = partial(self.session.learner.predict_with, self._served)
                    self.versions.append(Version(self.seconds, self.loss(predict)))


def alerts(outcomes: list[Outcomes], store: ClickHouse, now: float) -> set[str]:
    """Rules that the monitor says are broken at `now` (s), by what it has been sent."""
    for cube, columns in together(outcomes).items():
        store.insert(cube, columns)
    return {alert.rule for alert in Watch(store).look(int(now * 1000))}
