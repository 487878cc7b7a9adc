"""Purchases that come minutes later: how many are predicted, by how their labels are learned.

A simulated shop, rank and train on a log in this process. A cart is bought, two minutes later on average. The
shop knows the chance of each purchase: what is predicted when a page is shown is compared with what the
shop expects of that page, which is less noisy than what is drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from models.batch import Array
from stream.settings import Checkpoints, Features, Kafka, Settings, SlateSettings, Train
from stream.shop import Shop, ShopSettings
from tests.flow.harness import START, Stage

MINUTES, WINDOW_S = 40, 600
SHOP = ShopSettings(visitors=300, pages_per_s=8.0, items=500, drift=0.1, buy=1.0, buy_s=120.0, bots=0.0)


class Purchases(NamedTuple):
    """Of the pages of each window [MINUTES * 60 / WINDOW_S]."""

    predicted: Array
    observed: Array
    expected: Array


class KnownShop(Shop):
    """Adds up the purchases that it expects of its pages, by second."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.expected = np.zeros(MINUTES * 60 + 1)

    def close(self) -> None:
        """Nobody sees another page; what is in carts is bought."""
        self.visitors.next_page[:] = np.inf

    def _plan(self, visitor: int, page: Any, chances: Array, t: float) -> None:
        carts = [self._act("click", visitor, page, place, t).cart_chance for place in page.places]
        self.expected[int(t)] += SHOP.buy * float(chances @ np.array(carts))
        super()._plan(visitor, page, chances, t)


def settings(delayed: str) -> Settings:
    """As they come, but small, and with room for the lists of minutes."""
    return Settings(
        kafka=Kafka(partitions=1),
        slate=SlateSettings(candidates=50),
        features=Features(users=8192, items=10_000, lists=64),
        checkpoints=Checkpoints(seconds=1e6, events=10**9),
        train=Train(
            delayed=delayed, rows=8192, width=16, hidden=32, device="cpu", snapshot_s=1e6,
        ),
    )  # fmt: skip


def live(path: Path, delayed: str) -> Purchases:
    """Let the shop live, then wait until all has been bought and judged."""
    stage = Stage(path, settings(delayed))
    slates = stage.log.broadcast_source("recommendations", {})
    shop = KnownShop(SHOP, stage.log.sink(), slates, int(START * 1000))
    stage.start("train")
    stage.start("rank")
    end = START + 60 * MINUTES
    while stage.now < end + stage.settings.train.conversion_wait_s + 60:
        if stage.now >= end:
            shop.close()
        shop.step(stage.now - START)
        stage.turn(1.0 if stage.now < end else 20.0)
    counted = np.zeros((2, MINUTES * 60))
    for (_, second, task, lag, _), (_, positives, predicted, _) in stage.counted("quality").items():
        if (task, lag) == ("purchase", "0") and second < end:
            counted[:, int(second - START)] += predicted, positives
    windows = np.arange(0, MINUTES * 60, WINDOW_S)
    return Purchases(*(np.add.reduceat(c, windows) for c in (*counted, shop.expected[:-1])))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("delayed", ["wait", "fnw", "fnc"])
def test_as_many_purchases_are_predicted_as_the_shop_expects(tmp_path: Path, delayed: str) -> None:
    seen = live(tmp_path, delayed)
    learned = (seen.predicted / seen.expected)[2 if delayed == "wait" else 1 :]
    assert all((learned >= 0.95) & (learned <= 1.05)), learned


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_too_few_are_predicted_where_late_labels_are_left_out(tmp_path: Path) -> None:
    seen = live(tmp_path, "naive")
    learned = (seen.predicted / seen.expected)[1:]
    assert all(learned < 0.9), learned
