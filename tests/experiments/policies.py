"""Fine-tuning policies where tastes change at once: ``python -m tests.experiments.policies``.

Each policy runs the train role in virtual time on the same lists: how good predictions are in calm and after
the break, and what that costs. Costs are CPU time of this process; everything else is the same at each run.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from models.batch import Array, Lists
from models.learner import Learner
from models.policy import POLICIES
from models.quality import Histogram, auc
from stream.checkpoint import Store
from stream.log import Output
from stream.memory import MemoryLog
from stream.messages import CUBES, decode_outcomes
from stream.runner import Runner
from stream.settings import Checkpoints, Settings, shape_of
from stream.settings import Train as TrainSettings
from stream.train.role import Train
from tests.bench.__main__ import number
from tests.stream.test_counts import rows
from tests.stream.train.synthetic import T0, World

STEP_S = 0.5
LISTS = 16
"""Shown per step."""
BUFFER = 3000
"""Lists to replay: those from before the break are gone before the end."""
YOUNG, BREAK, END = 110, 160, 270
"""Seconds: a model is young before the first; tastes change at the second."""
AFTER = 60
"""Seconds after the break that are looked at together."""
SMOOTH = 5
"""Seconds of which a loss is the mean, where it is compared with a level."""
NEAR = 0.02
"""Nats by which a loss may exceed the level of ``full`` and count as back on it."""


HEADINGS = (
    "policy",
    "log loss, calm", "AUC", "lists/s", "delta, bytes",
    "log loss, minute after", "AUC", "lists/s", "delta, bytes",
    "back after, s",
)  # fmt: skip


class Row(NamedTuple):
    """What one policy did: log loss (nats) and AUC of clicks, lists learned a CPU second, bytes of a delta.

    `back` is how many seconds after the break the loss is back near the level that ``full`` reaches.
    """

    policy: str
    loss: float
    auc: float
    lists_per_s: float
    bytes: float
    loss_after: float
    auc_after: float
    lists_per_s_after: float
    bytes_after: float
    back: float


class Timed(Learner):
    """A learner that knows how much CPU time its steps took, and how many new lists they were of."""

    spent, lists = 0.0, 0

    def learn(self, lists: Lists, *how: Any, again: bool = False, **named: Any) -> float:
        began = time.process_time()
        loss = super().learn(lists, *how, again=again, **named)
        self.spent += time.process_time() - began
        self.lists += 0 if again else len(lists)
        return loss


class Run:
    """A world, and a train role that learns from it by one policy.

    Attributes
    ----------
    modes
        What the policy wanted at each step of the world.
    """

    def __init__(self, path: Path, policy: str, graphs: Path, seed: int = 0) -> None:
        settings = Settings(
            train=TrainSettings(
                rows=2048,
                policy=policy,
                buffer_lists=BUFFER,
                click_wait_s=2.0,
                evaluate_after_s=4.0,
                device="cpu",
                seed=seed,
            ),
            checkpoints=Checkpoints(path=str(path), seconds=1e6),
        )
        self.now, self.modes = T0 / 1000, list[str]()
        shape = shape_of(settings)
        self.learner = Timed(
            shape, seed=seed, device="cpu", learning_rate=settings.train.learning_rate,
            delayed=settings.train.delayed, policy=policy, graphs=graphs,
        )  # fmt: skip
        counts = {"examples": 1, "model": 1, "outcomes": 1, "dead-letters": 1}
        self.log = MemoryLog(counts, lambda: self.now)
        self.world = World(shape, seed)
        store = Store(path)
        role = Train(settings, store, make=lambda _: self.learner)
        self.runner = Runner(role, self.log, store, settings, lambda: self.now)

    def live(self, until: float) -> float:
        """Go on to this second of the stream; returns new lists learned per CPU second of learning."""
        spent, lists = self.learner.spent, self.learner.lists
        while self.now < T0 / 1000 + until:
            self.now += STEP_S
            sink = self.log.sink()
            sink.publish(Output("examples", None, self.world.step(LISTS, int(self.now * 1000)), 0))
            sink.flush()
            self.runner.once()
            self.modes.append(self.learner.trainer.mode)
        return (self.learner.lists - lists) / (self.learner.spent - spent)

    def change(self) -> None:
        """From now on, visitors like other items, and the prices that they did not like."""
        self.world.appeal = self.world.rng.permutation(self.world.appeal)
        self.world.price = -self.world.price

    def quality(self) -> dict[int, Histogram]:
        """Prequential predictions of clicks, by second."""
        sums: dict[int, dict[int, Array]] = {}
        for (second, task, lag, at), row in self._counted("quality").items():
            if (task, lag) == ("click", "0"):
                sums.setdefault(int(second - T0 // 1000), {})[at] = np.array(row)
        return {s: Histogram(np.array([*bins]), *np.array([*bins.values()]).T) for s, bins in sums.items()}

    def delta_bytes(self, first: float, last: float) -> float:
        """Mean bytes of the deltas of these seconds."""
        names = [*CUBES["models"].dims, *CUBES["models"].sums]
        found = [dict(zip(names, (*k, *v), strict=True)) for k, v in self._counted("models").items()]
        deltas = [row for row in found if row["decision"] == "published"]
        return float(np.mean([row["bytes"] for row in deltas if first <= row["second"] - T0 / 1000 < last]))

    def _counted(self, cube: str) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        return rows([decode_outcomes(o.value or b"") for o in self.log.outputs("outcomes")], cube)


def log_loss(quality: Mapping[int, Histogram], first: float, last: float) -> float:
    """Mean over the predictions of these seconds."""
    parts = [h for second, h in quality.items() if first <= second < last]
    return float(sum(h.loss.sum() for h in parts) / sum(h.count.sum() for h in parts))


def area(quality: Mapping[int, Histogram], first: float, last: float) -> float:
    """AUC of these seconds."""
    parts = [h for second, h in quality.items() if first <= second < last]
    index = np.unique(np.concatenate([h.bin for h in parts]))
    total = np.zeros((4, len(index)))
    for h in parts:
        total[:, np.searchsorted(index, h.bin)] += h.count, h.positives, h.predicted, h.loss
    return auc(Histogram(index, *total))


def back(quality: Mapping[int, Histogram], level: float) -> float:
    """Seconds from the break to when the loss is near `level`; infinite where it is not until the end."""
    seconds = range(BREAK, END - 2 * SMOOTH)
    near = (s for s in seconds if log_loss(quality, s, s + SMOOTH) <= level + NEAR)
    return next(near, np.inf) - BREAK


def run(policy: str, graphs: Path, level: float | None = None, seed: int = 0) -> tuple[Row, Run]:
    """One policy's row; `level` is that of ``full`` after the break (None: it is ``full``'s row)."""
    with tempfile.TemporaryDirectory() as folder:
        one = Run(Path(folder), policy, graphs, seed)
        one.live(YOUNG)
        calm = one.live(BREAK)
        one.change()
        after = one.live(BREAK + AFTER)
        one.live(END)
    quality = one.quality()
    level = reached(one) if level is None else level
    row = Row(
        policy,
        log_loss(quality, YOUNG, BREAK), area(quality, YOUNG, BREAK), calm, one.delta_bytes(YOUNG, BREAK),
        log_loss(quality, BREAK, BREAK + AFTER), area(quality, BREAK, BREAK + AFTER), after,
        one.delta_bytes(BREAK, BREAK + AFTER), back(quality, level),
    )  # fmt: skip
    return row, one


def reached(one: Run) -> float:
    """Loss at the end of the stream."""
    return log_loss(one.quality(), END - 6 * SMOOTH, END - SMOOTH)


def main() -> int:
    """Print the table."""
    torch.set_num_threads(1)
    table = Table(*HEADINGS)
    graphs = Path(tempfile.gettempdir()) / "liverank-experiment-graphs"
    level = None
    for policy in POLICIES:
        row, one = run(policy, graphs, level)
        level = reached(one) if level is None else level
        table.add_row(policy, *(number(figure) for figure in row[1:]))
    Console(width=140).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
