"""Purchases that come minutes after their lists: how many the train role predicts, by how it learns of them.

Visitors whose chances are known are shown lists; what they click they may buy, two minutes later on average.
What is predicted when a list arrives is compared with what is to be expected of it.
"""

from __future__ import annotations

import heapq
from pathlib import Path

import numpy as np
import pytest

from models.batch import FEATURE, Array, F
from models.learner import Learner
from stream.checkpoint import Store
from stream.log import Output
from stream.memory import MemoryLog
from stream.messages import decode_outcomes, encode_binary
from stream.runner import Runner
from stream.settings import Checkpoints, Settings, Train, shape_of
from stream.train.role import Train as Role
from tests.stream.test_counts import rows
from tests.stream.train.synthetic import ITEMS, SIZE, T0, labels, lists, message

MINUTES, WINDOW_S, TURN_S, LISTS = 40, 600, 2, 8
CLICK_S, BUY_S = 2.0, 120.0
CLICK, PURCHASE = 0, 2


class Buyers:
    """Lists of random items; what is clicked is bought with a chance that is the item's, and late."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.appeal, self.buy = self.rng.normal(0, 1, ITEMS), self.rng.uniform(0.2, 0.8, ITEMS)
        self.expected: list[float] = []
        self.offset = 0
        self.to_come: list[tuple[float, int, int, int]] = []

    def step(self, settings: Settings, t: float, count: int) -> bytes:
        """Lists shown at `t` (s), and what was clicked and bought of earlier ones since."""
        due = []
        while self.to_come and self.to_come[0][0] <= t:
            due.append(heapq.heappop(self.to_come)[1:])
        shown = list(range(self.offset, self.offset + count))
        ts = T0 + int(t * 1000)
        index = self.rng.integers(0, ITEMS, (count, SIZE))
        features = self.rng.normal(0, 1, (count, SIZE, F)).astype(np.float32)
        click: Array = 1 / (1 + np.exp(1.5 - self.appeal[index] - features[:, :, FEATURE["price"]]))
        self.expected.append(float((click * self.buy[index]).sum()))
        for b, k in np.argwhere(self.rng.random((count, SIZE)) < click).tolist():
            clicked = t + self.rng.uniform(0, CLICK_S)
            heapq.heappush(self.to_come, (clicked, shown[b], k, CLICK))
            if self.rng.random() < self.buy[index[b, k]]:
                bought = clicked + self.rng.exponential(BUY_S)
                heapq.heappush(self.to_come, (bought, shown[b], k, PURCHASE))
        self.offset += count
        columns = lists(shape_of(settings), shown, ts, [SIZE] * count) | {
            "item": index.ravel() + 2,
            "item_category": index.ravel() % 7,
            "features": features.reshape(-1, F),
        }
        names = {i + 2: f"item{i}" for i in range(ITEMS)} if t == 0 else {}
        last = self.offset - 1
        return encode_binary(
            message(
                shape_of(settings), first=shown[0] if shown else last, last=last, names=names,
                **columns, **labels(due, ts),
            )
        )  # fmt: skip


def ratios(path: Path, graphs: Path, delayed: str) -> Array:
    """Purchases predicted over those to expect, for every `WINDOW_S` of event time."""
    train = Train(
        delayed=delayed, rows=2048, width=8, hidden=16, device="cpu", snapshot_s=1e6, learning_rate=0.005,
        replay=2, lists_per_batch=64,  # whatever is ready in a turn is one batch
    )  # fmt: skip
    settings = Settings(train=train, checkpoints=Checkpoints(path=str(path), seconds=1e6, events=10**9))
    now = [T0 / 1000]
    log = MemoryLog({"examples": 1, "model": 1, "outcomes": 1, "dead-letters": 1}, lambda: now[0])
    store = Store(path)
    role = Role(settings, store, make=lambda s: Learner(
        shape_of(s), device="cpu", graphs=graphs, learning_rate=s.train.learning_rate, delayed=s.train.delayed
    ))  # fmt: skip
    runner, buyers, sink = Runner(role, log, store, settings, lambda: now[0]), Buyers(), log.sink()
    for t in range(0, 60 * MINUTES + int(train.conversion_wait_s) + 60, TURN_S):
        now[0] = T0 / 1000 + t
        count = LISTS if t < 60 * MINUTES else 0
        if count or t % 60 == 0:
            sink.publish(Output("examples", None, buyers.step(settings, t, count), 0))
            sink.flush()
            runner.once()
    predicted = np.zeros(60 * MINUTES)
    for (second, task, lag, _), (_, _, p, _) in rows(
        [decode_outcomes(o.value or b"") for o in log.outputs("outcomes")], "quality"
    ).items():
        if (task, lag) == ("purchase", "0"):
            predicted[second - T0 // 1000] += p
    expected = np.array(buyers.expected[: 60 * MINUTES // TURN_S]).reshape(-1, WINDOW_S // TURN_S)
    ratio: Array = predicted.reshape(-1, WINDOW_S).sum(1) / expected.sum(1)
    return ratio


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("delayed", "learned_after"), [("wait", 2), ("fnw", 0), ("fnc", 0)])
def test_as_many_purchases_are_predicted_as_are_to_be_expected(
    tmp_path: Path, graphs: Path, delayed: str, learned_after: int
) -> None:
    learned = ratios(tmp_path, graphs, delayed)[learned_after:]
    assert np.abs(learned - 1).max() <= 0.05, learned


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_too_few_are_predicted_where_late_labels_are_left_out(tmp_path: Path, graphs: Path) -> None:
    learned = ratios(tmp_path, graphs, "naive")[1:]
    assert learned.max() < 0.95, learned
