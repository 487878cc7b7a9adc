"""One partition of rank without a log: events in, what the kernels and the counters made of them out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stream.checkpoint import Store
from stream.ids import hash_id
from stream.log import Output, Records
from stream.messages import AnyEvent, Item, Outcomes, encode_json
from stream.rank.role import Rank
from stream.rank.share import Share
from stream.settings import Features, Kafka, Settings, SlateSettings, Train

T = 1_700_000_040_000
"""A full minute, ms since the epoch; times in the tests count from here."""

SMALL = Settings(
    kafka=Kafka(partitions=1),
    features=Features(
        history=4, lists=3, users=8192, items=1000, session_gap_s=60.0, list_window_s=30.0, events_per_s=1e6
    ),
    slate=SlateSettings(size=3, candidates=16, explore=0.0),
    train=Train(rows=2048, width=4, hidden=8),
)


class Stage:
    """Rank with the partition 0, and the offset of the next record."""

    def __init__(self, path: Path, settings: Settings = SMALL) -> None:
        self.path, self.offset = path, 0
        self.rank = Rank(settings, Store(path))
        self.rank.restore("rank-0", [0], [])

    @property
    def share(self) -> Share:
        return self.rank.shares[0]

    def records(self, *events: AnyEvent | bytes | None, broker_ms: int | None = None) -> Records:
        """The next records of the partition; broker times are the events' own unless given."""
        values = [e if e is None or isinstance(e, bytes) else encode_json(e) for e in events]
        times = [T if isinstance(e, bytes | None) else int(e.ts) for e in events]  # type: ignore[arg-type]
        offsets = list(range(self.offset, self.offset + len(events)))
        self.offset += len(events)
        stamps = times if broker_ms is None else [broker_ms] * len(events)
        return Records("events", 0, offsets, stamps, [None] * len(events), values)

    def feed(
        self, *events: AnyEvent | bytes | None, quiet: bool = False, broker_ms: int | None = None
    ) -> list[Output]:
        return self.rank.process(self.records(*events, broker_ms=broker_ms), T / 1000, quiet)

    def items(self, *items: Item) -> None:
        values: list[bytes | None] = [encode_json(item) for item in items]
        keys: list[bytes | None] = [item.item_id.encode() for item in items]
        n = len(items)
        self.rank.absorb(Records("items", 0, list(range(n)), [T] * n, keys, values), T / 1000)

    def visitor(self, user_id: str) -> int:
        """Row of a visitor who is there."""
        return int(self.share.visitors.table.lookup(np.array([hash_id(user_id)], np.uint64))[0])

    def history(self, user_id: str, *fields: str) -> list[tuple[Any, ...]]:
        """These fields of a visitor's history entries, as far as there are any."""
        own = self.share.visitors.memory.history[self.visitor(user_id)]
        return [tuple(entry[f].item() for f in fields) for entry in own if entry["item"]]

    def counted(self, cube: str) -> Mapping[str, list[Any]]:
        """Columns of what is counted now."""
        messages: list[Outcomes] = self.rank.counts.take(0)
        (columns,) = [m.cubes[cube] for m in messages if cube in m.cubes] or [{}]
        return columns
