"""Events into features and examples: rank without slates, against reading and decoding them.

``clicks`` are 10% impressions of 10 items and 90% feedback, ``lists`` only impressions of 10. Through
the embedded broker, and (``in memory``) with the records at hand. CPU seconds are of this process,
librdkafka's threads included, the broker's not. ``rank in its runner`` adds what the role's loop does:
examples are published and acknowledged, positions committed, checkpoints written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from msgspec.structs import replace

from stream.broker import KafkaLog
from stream.checkpoint import Store
from stream.log import Output, Positions, Records, Source
from stream.messages import decode_event
from stream.runner import LIMIT, POLL_S, Runner
from stream.settings import Kafka, Settings
from tests.bench.measure import Context, Figure, Spent, Watch, alternate, rates
from tests.bench.servers import embedded_broker
from tests.bench.world import CLICKS, LISTS, Mix, Pair, Traffic, World, batches, grow, new_rank

RATE = 100_000
"""Events a second of event time: what a core is to keep up with; lists made of acts are so many a second."""

PATIENCE_S = 60.0
Take = Callable[[Records], object]


def run(context: Context) -> list[Figure]:
    """Both mixes, through the embedded broker and in memory."""
    world = grow(context.directory, context.seconds, context.visits)
    figures = []
    for mix, size in ((CLICKS, context.size(60_000, 2_000)), (LISTS, context.size(24_000, 1_000))):
        start_ms = int(time.time() * 1000) - 1000 * size // RATE
        events = Traffic().events(mix, size, start_ms, rate=RATE)
        with embedded_broker(world.settings.kafka) as kafka:
            figures += through_broker(context, world, kafka, mix, events)
        figures += in_memory(context, world, mix, events)
    return figures


def through_broker(
    context: Context, world: World, kafka: Kafka, mix: Mix, events: list[Pair]
) -> list[Figure]:
    """Read what a broker holds: only that, decoding, as rank does, as its runner does."""
    log = KafkaLog(kafka)
    fill(kafka, events)
    groups = count()
    total = len(events)

    def read(prepare: Callable[[], Take]) -> Callable[[], Spent]:
        return lambda: read_all(log, f"{mix.name}-{next(groups)}", total, prepare())

    def runner() -> Spent:
        return run_all(world, log, kafka, context.directory / f"{mix.name}-{next(groups)}", total)

    consume, decode, ours, whole = alternate(
        context.rounds,
        [read(lambda: len), read(lambda: decode_all), read(lambda: taking(world)), runner],
    )
    log.close()
    return [
        *rates(f"{mix.name}: rank", "events", total, ours, "read only", consume),
        *rates(f"{mix.name}: rank", "events", total, ours, "read and decode", decode),
        *rates(f"{mix.name}: rank in its runner", "events", total, whole, "read only", consume),
    ]


def in_memory(context: Context, world: World, mix: Mix, events: list[Pair]) -> list[Figure]:
    """The same without a broker."""
    records = batches(events, world.settings.kafka.partitions)

    def over(prepare: Callable[[], Take]) -> Callable[[], Spent]:
        def measure() -> Spent:
            take = prepare()
            watch = Watch()
            for each in records:
                take(each)
            return watch.spent()

        return measure

    ours, decode = alternate(context.rounds, [over(lambda: taking(world)), over(lambda: decode_all)])
    return rates(f"{mix.name}: rank, in memory", "events", len(events), ours, "decode", decode)


def fill(kafka: Kafka, events: list[Pair]) -> None:
    """Publish the events in large batches, as a broker holds them after a while of traffic."""
    log = KafkaLog(replace(kafka, options={"linger.ms": 50}))
    sink = log.sink()
    for key, value in events:
        sink.publish(Output("events", key, value))
    sink.flush()
    log.close()


def decode_all(records: Records) -> None:
    """Decode every event, and do nothing with it."""
    for value in records.values:
        decode_event(value)


def taking(world: World) -> Take:
    """A new rank, which takes records in as its runner would have it do."""
    rank = new_rank(world.settings, world.store, world.whole)

    def take(records: Records) -> None:
        now = time.time()  # counts are sent once a second of ours, however fast events are read
        rank.process(records, now, quiet=False)
        rank.tick(now)

    return take


def read_all(log: KafkaLog, group: str, total: int, take: Take) -> Spent:
    """Let a new group take in the whole topic; timed from when its partitions are known."""
    watch: list[Watch] = []

    def assigned(source: Source, partitions: list[int]) -> Positions:
        watch.append(Watch())
        return dict.fromkeys(partitions, 0)

    source = log.group_source("events", group, assigned, lambda partitions: None)
    seen, deadline = 0, time.monotonic() + PATIENCE_S
    while seen < total:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{group} got {seen} of {total} records")
        for records in source.poll(LIMIT, POLL_S):
            seen += len(records.offsets)
            take(records)
    spent = watch[0].spent()
    source.close()
    return spent


def run_all(world: World, log: KafkaLog, kafka: Kafka, directory: Path, total: int) -> Spent:
    """Let the role's own loop take in the whole topic."""
    settings: Settings = replace(world.settings, kafka=kafka)
    rank = new_rank(settings, world.store, world.whole)
    rank.name, rank.broadcasts = directory.name, ()
    watch = Watch()

    def step(number: int) -> None:
        nonlocal watch
        if number == 1 and not runner.assigned:
            watch = Watch()

    runner = Runner(rank, log, Store(directory), settings, time.time, step)
    seen, deadline = 0, time.monotonic() + PATIENCE_S
    while seen < total:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the runner got {seen} of {total} records")
        seen += runner.once()
    spent = watch.spent()
    runner.close()
    return spent
