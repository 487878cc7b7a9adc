"""Purchases that come minutes later, in the whole shop: ``python -m tests.experiments.delayed``.

The simulated shop, rank and train live in virtual time; what is in a cart is bought, two minutes later on
average. For each way to learn of that: acts predicted when pages were shown, over those that came of these
pages, every ten minutes of event time.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from models.batch import TASKS, Array
from models.losses import DELAYED
from stream.settings import Checkpoints, Features, Kafka, Settings, SlateSettings, Train
from stream.shop import Shop, ShopSettings
from tests.flow.harness import START, Stage

WINDOW_S = 600
TURN_S, CLOSED_TURN_S = 2.0, 20.0


class Seen(NamedTuple):
    """Sums over the pages of each window, by task [T, windows]."""

    predicted: Array
    observed: Array

    @property
    def ratio(self) -> Array:
        """Predicted over observed [T, windows]."""
        ratio: Array = self.predicted / self.observed
        return ratio

    @property
    def error(self) -> Array:
        """Standard error of `ratio`, as far as what happened is chance."""
        error: Array = self.ratio / np.sqrt(self.observed)
        return error


def shop_settings(seed: int) -> ShopSettings:
    """A shop whose fashions last for a quarter of an hour, and where all that is in carts is bought."""
    return ShopSettings(
        seed=seed, visitors=600, pages_per_s=24.0, items=500, drift=0.1, buy=1.0, buy_s=120.0, bots=0.0
    )


def settings(delayed: str) -> Settings:
    """Small ones, for a shop that is young for all of its time: it learns fast, in larger batches.

    What counts as lately fits the fashions; lists are remembered until what they sold is known.
    """
    return Settings(
        kafka=Kafka(partitions=1),
        slate=SlateSettings(candidates=50),
        features=Features(users=8192, items=10_000, lists=64),
        checkpoints=Checkpoints(seconds=1e6, events=10**9),
        train=Train(
            delayed=delayed,
            rows=8192,
            width=16,
            device="cpu",
            learning_rate=0.005,
            lists_per_batch=64,
            replay=2,
            publish_s=TURN_S,
            snapshot_s=1e6,
            half_life_short_s=600.0,
            half_life_long_s=6000.0,
            pair_half_life_s=600.0,
            history_half_life_s=1200.0,
        ),
    )


def run(delayed: str, minutes: int, path: Path, seed: int = 0) -> Seen:
    """Let the shop live for so long, then wait until all has been bought and judged."""
    stage = Stage(path, settings(delayed))
    slates = stage.log.broadcast_source("recommendations", {})
    shop = Shop(shop_settings(seed), stage.log.sink(), slates, int(START * 1000))
    stage.start("train")
    stage.start("rank")
    end = START + 60 * minutes
    while stage.now < end:
        shop.step(stage.now - START)
        stage.turn(TURN_S)
    shop.visitors.next_page[:] = np.inf  # nobody sees another page
    while stage.now < end + stage.settings.train.conversion_wait_s + 3 * CLOSED_TURN_S:
        shop.step(stage.now - START)
        stage.turn(CLOSED_TURN_S)
    return judged(stage, minutes)


def judged(stage: Stage, minutes: int) -> Seen:
    """What train counted of predictions made when lists arrived."""
    windows = 60 * minutes // WINDOW_S
    sums = np.zeros((2, len(TASKS), windows))
    for (_, second, task, lag, _), (_, positives, predicted, _) in stage.counted("quality").items():
        window = int(second - START) // WINDOW_S
        if lag == "0" and window < windows:
            sums[:, TASKS.index(task), window] += predicted, positives
    return Seen(*sums)


def main() -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.delayed", description=__doc__)
    parser.add_argument("--minutes", type=int, default=30, help="of the shop's time")
    parser.add_argument("--delayed", nargs="*", choices=[*DELAYED], default=[*DELAYED])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    windows = [f"{t}-{t + 10} min" for t in range(0, given.minutes, WINDOW_S // 60)]
    table = Table("predicted / observed", "", *windows)
    for delayed in given.delayed:
        with tempfile.TemporaryDirectory() as folder:
            seen = run(delayed, given.minutes, Path(folder), given.seed)
        for t in reversed(range(len(TASKS))):
            figures = zip(seen.ratio[t], seen.error[t], strict=True)
            table.add_row(delayed, f"{TASKS[t]}s", *(f"{r:.3f} ± {e:.3f}" for r, e in figures))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
