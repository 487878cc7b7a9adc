"""Record the simulated shop with pages that nobody ranks: a stream whose drift is known.

    python -m tests.experiments.shop_stream shop.jsonl.gz
    liverank evaluate shop.jsonl.gz --no-river --sync 1m,10m,1h,5h,never

Ten hours of 1.5 pages a second. Fashions come and go in hours instead of minutes, so that there is enough to
learn from before they are over.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path
from typing import IO

import msgspec

from stream.log import Output
from stream.memory import MemoryLog
from stream.shop import Shop, ShopSettings

START_MS = 1_700_000_000_000
STEP_S = 1.0


class Recorder:
    """A sink that writes events, and catalogue entries with the time they are told."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.now_ms = START_MS

    def publish(self, output: Output) -> None:
        """Write a line, if it is of a topic that a recording has."""
        if output.topic == "events":
            self._file.write((output.value or b"") + b"\n")
        elif output.topic == "items" and output.value is not None:
            entry = msgspec.json.decode(output.value) | {"ts": self.now_ms}
            self._file.write(msgspec.json.encode(entry) + b"\n")

    def flush(self) -> None:
        """Nothing waits."""


def record(path: Path, settings: ShopSettings, hours: float) -> None:
    """Let a shop live for some hours, and write what it publishes to a gzipped file."""
    log = MemoryLog({"recommendations": 1}, lambda: START_MS / 1000)
    with gzip.open(path, "wb", compresslevel=3) as file:
        recorder = Recorder(file)
        shop = Shop(settings, recorder, log.broadcast_source("recommendations", {}), START_MS)
        for second in range(int(hours * 3600 / STEP_S)):
            recorder.now_ms = START_MS + round(1000 * STEP_S * second)
            shop.step(second * STEP_S)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Record the simulated shop.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--hours", type=float, default=10)
    parser.add_argument("--pages-per-s", type=float, default=1.5)
    parser.add_argument("--visitors", type=int, default=100)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--drift", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chosen = ShopSettings(
        seed=given.seed,
        visitors=given.visitors,
        pages_per_s=given.pages_per_s,
        items=given.items,
        drift=given.drift,
    )
    record(given.file, chosen, given.hours)
