"""The same as `ingest`, through Apache Kafka on this machine.

Needs Java 17 and a script that starts a broker: ``../shared/kafka/start``, or what `KAFKA_START` names.
"""

from __future__ import annotations

import time

from tests.bench.ingest import through_broker
from tests.bench.measure import Context, Figure
from tests.bench.servers import real_broker
from tests.bench.world import CLICKS, Traffic, grow


def run(context: Context) -> list[Figure]:
    """The click mix."""
    world = grow(context.directory, context.seconds, context.visits)
    size = context.size(100_000, 2_000)
    events = Traffic().events(CLICKS, size, int(time.time() * 1000) - size)
    with real_broker(world.settings.kafka, context.directory) as kafka:
        return through_broker(context, world, kafka, CLICKS, events)
