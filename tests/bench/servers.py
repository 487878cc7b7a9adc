"""Brokers for benches, in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stream.broker import KafkaLog
from stream.embedded.stack import free_port
from stream.settings import Kafka
from tests.bench.measure import Skip

START = Path(__file__).parents[3] / "shared" / "kafka" / "start"
"""Starts Apache Kafka, where there is one; `KAFKA_START` names another."""


@contextmanager
def embedded_broker(kafka: Kafka) -> Iterator[Kafka]:
    """The embedded broker with all topics; yields settings that reach it."""
    topics = ",".join(f"{kafka.topic(name)}:{count}" for name, count in kafka.counts().items())
    argv = [sys.executable, "-m", "stream.embedded.broker", "--topics", topics]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            bootstrap = json.loads(process.stdout.readline())["bootstrap"]
            yield Kafka(bootstrap=bootstrap, session_timeout_ms=2000)
        finally:
            process.terminate()


@contextmanager
def real_broker(kafka: Kafka, directory: Path) -> Iterator[Kafka]:
    """Apache Kafka with all topics; yields settings that reach it."""
    start = Path(os.environ.get("KAFKA_START", START))
    if not start.exists():
        raise Skip("set KAFKA_START to a script that starts a broker, given port and data directory")
    if shutil.which("java") is None:
        raise Skip("the broker needs Java 17")
    port = free_port()
    argv = [str(start), str(port), str(directory / "kafka")]
    pid = int(subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout)
    try:
        reached = Kafka(bootstrap=f"127.0.0.1:{port}")
        log = KafkaLog(reached)
        log.ping(30.0)
        log.create_topics(kafka.counts())
        log.close()
        yield reached
    finally:
        os.kill(pid, signal.SIGKILL)
