"""Purchases that come minutes later: how many are predicted, by how their labels are learned.

A simulated shop with rank and train on a log in this process, at 20 pages a second. A cart is bought, two
minutes later on average; the shop's own chances, which it draws from, say how many purchases to expect.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.batch import Array
from stream.demo import HALF_LIVES
from stream.settings import Checkpoints, Features, Kafka, Settings, SlateSettings, Train
from stream.shop import Shop, ShopSettings
from tests.flow.harness import START, Stage

MINUTES, WINDOW_S, MATURE_S = 40, 600, 900
SHOP = ShopSettings(visitors=400, pages_per_s=20.0, buy=1.0, buy_s=120.0, bots=0.0)


class KnownShop(Shop):
    """Adds up the purchases that it may expect of its pages, by second."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.expected = np.zeros(MINUTES * 60 + 1)

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
            delayed=delayed, conversion_wait_s=MATURE_S, rows=8192, width=16, hidden=32, device="cpu",
            snapshot_s=1e6, **HALF_LIVES,
        ),
    )  # fmt: skip


def ratios(path: Path, delayed: str) -> list[float]:
    """Purchases predicted when lists were shown over those to expect, for every ten minutes."""
    stage = Stage(path, settings(delayed))
    slates = stage.log.broadcast_source("recommendations", {})
    shop = KnownShop(SHOP, stage.log.sink(), slates, int(START * 1000))
    stage.start("train")
    stage.start("rank")
    while stage.now < START + 60 * MINUTES:
        shop.step(stage.now - START)
        stage.turn(1.0)
    for _ in range(MATURE_S + 5):
        stage.turn(1.0)  # the shop is closed: lists become mature
    predicted = np.zeros(60 * MINUTES + 1)
    for (cube, second, task, lag, _), (_, _, p, _) in stage.counted("quality").items():
        if (task, lag) == ("purchase", "fresh"):
            predicted[int(second) - int(START)] += p
    windows = (np.add.reduceat(column[:-1], np.arange(0, 60 * MINUTES, WINDOW_S)) for column in (predicted, shop.expected))
    return list(np.divide(*windows))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("delayed", ["wait", "fnw", "fnc"])
def test_as_many_purchases_are_predicted_as_the_shop_expects(tmp_path: Path, delayed: str) -> None:
    learned = ratios(tmp_path, delayed)[2 if delayed == "wait" else 1 :]
    assert all(0.95 <= ratio <= 1.05 for ratio in learned), learned


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_far_too_few_are_predicted_where_late_labels_are_left_out(tmp_path: Path) -> None:
    learned = ratios(tmp_path, "naive")[1:]
    assert all(ratio < 0.5 for ratio in learned), learned
