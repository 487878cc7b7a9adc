"""Roles on a log in this process and a clock that the test moves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from stream.checkpoint import Store
from stream.log import Output
from stream.memory import MemoryLog
from stream.messages import CUBES, AnyEvent, Item, Slate, decode_outcomes, encode_json, slate_decoder
from stream.rank.role import Rank
from stream.runner import Role, Runner
from stream.settings import Checkpoints, Features, Settings, Train
from stream.train.role import Train as TrainRole

START = 1_700_000_000.0
SMALL = Settings(
    features=Features(users=8192, items=10_000),
    train=Train(rows=2048, width=8, hidden=16, click_wait_s=2.0, evaluate_after_s=4.0, frozen_after_s=10.0),
    checkpoints=Checkpoints(seconds=2.0),
)


class Crash(Exception):
    """The process dies here."""


class Stage:
    """A log, a store, a clock, and the roles that run on them.

    Parameters
    ----------
    path
        For checkpoints.
    settings
        Small ones by default.
    """

    def __init__(self, path: Path, settings: Settings = SMALL) -> None:
        self.now = START
        self.settings = settings
        self.log = MemoryLog(settings.kafka.counts(), lambda: self.now)
        self.store = Store(path)
        self.runners: dict[str, Runner] = {}

    def start(self, name: str, step: Callable[[int], None] = lambda _: None) -> Runner:
        """Start a role anew; one that is still there is abandoned, as if it had been killed."""
        role: Role = (Rank if name == "rank" else TrainRole)(self.settings, self.store)
        self.runners[name] = Runner(role, self.log, self.store, self.settings, lambda: self.now, step)
        self.runners[name].start(patience=0.0)
        return self.runners[name]

    def publish(self, events: Iterable[AnyEvent | Item | tuple[bytes, bytes]]) -> None:
        """Publish events, catalogue entries, or raw (key, value) pairs as events."""
        sink = self.log.sink()
        for event in events:
            if isinstance(event, tuple):
                sink.publish(Output("events", *event))
            elif isinstance(event, Item):
                sink.publish(Output("items", event.item_id.encode(), encode_json(event)))
            else:
                sink.publish(Output("events", event.user_id.encode(), encode_json(event)))
        sink.flush()

    def turn(self, seconds: float = 0.1) -> None:
        """Let every role take one turn, then move the clock."""
        for runner in self.runners.values():
            runner.once(0.0)
        self.now += seconds

    def settle(self, turns: int = 30) -> None:
        """Let the roles take turns until all that is due by time has been done."""
        for _ in range(turns):
            self.turn()

    def slates(self) -> dict[str, Slate]:
        """The slate of each user that stands: the one whose event came last."""
        standing: dict[str, Slate] = {}
        for output in self.log.outputs("recommendations"):
            slate = slate_decoder.decode(output.value or b"")
            before = standing.get(slate.user_id)
            if before is None or before.event.offset <= slate.event.offset:
                standing[slate.user_id] = slate
        return standing

    def counted(self, *cubes: str) -> dict[tuple[Any, ...], tuple[float, ...]]:
        """What readers of `outcomes` see: the newest version of each row, blocks added up."""
        newest: dict[tuple[Any, ...], tuple[int, tuple[float, ...]]] = {}
        for output in self.log.outputs("outcomes"):
            message = decode_outcomes(output.value or b"")
            for cube in set(cubes) & set(message.cubes):
                columns, spec = message.cubes[cube], CUBES[cube]
                dims = zip(*(columns[d] for d in spec.dims), strict=True)
                sums = zip(*(columns[s] for s in spec.sums), strict=True)
                for key, row in zip(dims, sums, strict=True):
                    name = (message.source, message.partition, message.block, cube, *key)
                    if name not in newest or newest[name][0] <= message.version:
                        newest[name] = (message.version, row)
        total: dict[tuple[Any, ...], list[float]] = defaultdict(list)
        for name, (_, row) in newest.items():
            key = name[3:]
            total[key] = [a + b for a, b in zip(total[key], row, strict=True)] if total[key] else list(row)
        return {key: tuple(row) for key, row in total.items()}
