"""From an event published to a slate that reflects it, through the whole stack, while it trains.

A client outside publishes 2,000 events/s: each second 400 visitors come, with five events at once, two
of them clicks; what it then waits for is a slate of that visitor at or after the offset of the click.
The alternative is the broker alone: the same client gets its own clicks back, while the roles do what
they do (same load), and before they were started.
Everything shares this machine: broker, ClickHouse, three roles, and the client.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stream.broker import KafkaLog
from stream.embedded.stack import Stack
from stream.log import Output, Positions, Records, Sink
from stream.messages import encode_json, slate_decoder
from stream.partition import partition_of
from stream.runner import LIMIT
from stream.settings import Settings, Train
from tests.bench.measure import Context, Figure
from tests.bench.world import USERS, Traffic, catalogue

VISITS, EVENTS = 400, 5
"""Visits a second, and events of each."""

POLL_S = 0.002
WARM_S, ROUND_S = 15.0, 6.0
LATE_S = 15.0
"""What has not come so long after the last event counts as lost; the roles catch up in it, too."""

QUANTILES = {"p50": 50, "p95": 95, "p99": 99, "max": 100}


class Sent(NamedTuple):
    """A click that somebody waits for."""

    partition: int
    offset: int
    at: float


class Got(NamedTuple):
    """What came for a visitor: it reflects everything in `partition` up to `offset`."""

    user_id: str
    partition: int
    offset: int


@dataclass
class Heard:
    """What a listener noted.

    Attributes
    ----------
    waits
        From a click to what reflects it, s.
    lost
        Clicks that nothing came for.
    visits, seconds
        What was published, and in what time.
    elapsed
        The same until everything was answered, s.
    slates, versions
        How many slates came, and which versions of the model they name.
    """

    waits: list[float] = field(default_factory=list)
    lost: int = 0
    visits: int = 0
    seconds: float = 0.0
    elapsed: float = 0.0
    slates: int = 0
    versions: set[str] = field(default_factory=set)

    def quantile(self, percent: float) -> float:
        """Of the waiting times, in ms."""
        return 1e3 * float(np.percentile(self.waits, percent)) if self.waits else float("nan")


Read = Callable[[Records, Heard], list[Got]]


class Client:
    """Publishes visits at an even pace and waits for what they cause.

    It is the only one to publish events, so it knows their offsets.
    """

    def __init__(self, log: KafkaLog, partitions: int) -> None:
        self._log, self._sink, self._partitions = log, log.sink(), partitions
        self._traffic, self._rng = Traffic(), np.random.default_rng(0)
        self._offsets: Positions = dict.fromkeys(range(partitions), 0)
        self._users: deque[int] = deque()

    def play(self, seconds: float, topic: str, read: Read, into: Heard) -> None:
        """Publish for `seconds` and listen to `topic`, and a little longer."""
        source = self._log.broadcast_source(topic, self._log.ends(topic))
        source.poll(LIMIT, 0.5)  # connects
        waiting: dict[str, list[Sent]] = {}
        began, visits = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - began) < seconds + LATE_S:
            while visits < min(elapsed, seconds) * VISITS:
                self._visit(waiting)
                visits += 1
            if elapsed > seconds and not any(waiting.values()):
                break
            for records in source.poll(LIMIT, POLL_S):
                now = time.perf_counter()
                for got in read(records, into):
                    _settle(got, waiting, now, into)
        into.lost += sum(map(len, waiting.values()))
        into.visits, into.seconds = into.visits + visits, into.seconds + seconds
        into.elapsed += elapsed
        source.close()

    def _visit(self, waiting: dict[str, list[Sent]]) -> None:
        if not self._users:
            self._users.extend(self._rng.permutation(USERS).tolist())
        user = self._users.popleft()
        for key, value in self._traffic.visit(user, int(time.time() * 1000)):
            p = partition_of(key, self._partitions)
            if b'"click"' in value:
                waiting.setdefault(key.decode(), []).append(Sent(p, self._offsets[p], time.perf_counter()))
            self._sink.publish(Output("events", key, value))
            self._offsets[p] += 1


def _settle(got: Got, waiting: dict[str, list[Sent]], now: float, into: Heard) -> None:
    sent = waiting.get(got.user_id, [])
    reflected = [s for s in sent if s.partition == got.partition and s.offset <= got.offset]
    into.waits += [now - s.at for s in reflected]
    waiting[got.user_id] = [s for s in sent if s not in reflected]


def slates(records: Records, into: Heard) -> list[Got]:
    """What slates reflect; notes whose versions of the model they are."""
    found = [slate_decoder.decode(value) for value in records.values if value is not None]
    into.slates += len(found)
    into.versions.update(slate.model.version for slate in found)
    return [Got(slate.user_id, slate.event.partition, slate.event.offset) for slate in found]


def echoes(records: Records, into: Heard) -> list[Got]:
    """Events are their own answers."""
    keys = (key.decode() for key in records.keys if key is not None)
    return [Got(key, records.partition, offset) for key, offset in zip(keys, records.offsets, strict=True)]


def run(context: Context) -> list[Figure]:
    """Quantiles in ms, and what each process used of a core."""
    warm, length = (5.0, 1.0) if context.quick else (WARM_S, ROUND_S)
    ours, beside, alone = Heard(), Heard(), Heard()
    used: Counter[str] = Counter()
    with Stack(Settings(), context.directory / "stack", tell, roles=False) as stack:
        log = KafkaLog(stack.settings.kafka)
        publish_catalogue(log.sink())
        client = Client(log, stack.settings.kafka.partitions)
        client.play(length, "events", echoes, alone)
        stack.start_roles()
        client.play(warm, "recommendations", slates, Heard())
        for _ in range(context.rounds):
            before = cpu_seconds(stack)
            client.play(length, "recommendations", slates, ours)
            used.update({name: cpu - before[name] for name, cpu in cpu_seconds(stack).items()})
            client.play(length, "events", echoes, beside)
            stack.watch()
        log.close()
    return [*_waits(ours, beside, alone), *_costs(ours, used)]


def _waits(ours: Heard, beside: Heard, alone: Heard) -> list[Figure]:
    what = "click published to slate"
    figures = [
        Figure(f"{what}, {name}", "ms", ours.quantile(percent), alternative, heard.quantile(percent))
        for alternative, heard in (("broker alone, same load", beside), ("broker alone, no roles", alone))
        for name, percent in QUANTILES.items()
    ]
    return [
        *figures,
        Figure("clicks without an answer", "clicks", ours.lost, "broker alone, same load", beside.lost),
        Figure("events", "events/s", EVENTS * ours.visits / ours.seconds, "wanted", EVENTS * VISITS),
    ]


def _costs(ours: Heard, used: Mapping[str, float]) -> list[Figure]:
    total, versions = sum(used.values()), len(ours.versions) / ours.elapsed
    return [
        Figure("slates", "slates/s", ours.slates / ours.elapsed, "visits", ours.visits / ours.elapsed),
        Figure("model versions in slates", "versions/s", versions, "wanted", 1 / Train().publish_s),
        *(
            Figure(f"{name}'s CPU", "cores", cpu / ours.elapsed, "all", total / ours.elapsed)
            for name, cpu in used.items()
        ),
    ]


def tell(line: str) -> None:
    """Say what became of a child, where it is not taken for a result."""
    print(line, file=sys.stderr)


def publish_catalogue(sink: Sink) -> None:
    """Tell rank what the shop has."""
    for item in catalogue():
        sink.publish(Output("items", item.item_id.encode(), encode_json(item)))
    sink.flush()


def cpu_seconds(stack: Stack) -> dict[str, float]:
    """CPU time of each process of the stack so far; empty where there is no /proc."""
    ticks = os.sysconf("SC_CLK_TCK")
    found = {}
    for name, pid in stack.supervisor.pids().items():
        path = Path(f"/proc/{pid}/stat")
        if path.exists():
            # user and system time are the 12th and 13th after the name, which may hold spaces
            fields = path.read_text().rpartition(")")[2].split()
            found[name] = (int(fields[11]) + int(fields[12])) / ticks
    return found
