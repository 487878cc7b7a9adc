"""Brokers for these tests; each test has a prefix, and so topics and groups, of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.broker import KafkaLog
from stream.embedded.stack import free_port
from stream.settings import Kafka
from tests.integration.outside import Up

TOPIC_SETS = 40
"""The embedded broker makes its topics when it starts: so many tests can have their own."""

TWO_ARMS = """
arms = [
    { name = "fresh", share = 0.5, model = "fresh" },
    { name = "popularity", share = 0.5, model = "popularity" },
]
[checkpoints]
seconds = 1.0
"""
"""Of the stack; checkpoints are frequent, so that a crash finds one."""

START = Path(__file__).parents[3] / "shared" / "kafka" / "start"


@pytest.fixture(scope="session")
def embedded_sets() -> Iterator[Iterator[Kafka]]:
    """Settings of one embedded broker, each with another prefix."""
    topics = ",".join(f"t{i}.events:4" for i in range(TOPIC_SETS))
    argv = [sys.executable, "-m", "stream.embedded.broker", "--topics", topics]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        bootstrap = json.loads(process.stdout.readline())["bootstrap"]
        yield iter(
            Kafka(bootstrap=bootstrap, prefix=f"t{i}.", session_timeout_ms=2000) for i in range(TOPIC_SETS)
        )
        process.terminate()


@pytest.fixture
def embedded_broker(embedded_sets: Iterator[Kafka]) -> Kafka:
    """Settings for the embedded broker, with a topic `events` of 4 partitions that nobody else uses."""
    return next(embedded_sets)


@pytest.fixture(scope="session")
def real_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an Apache Kafka started for these tests, by the script that `KAFKA_START` names."""
    start = Path(os.environ.get("KAFKA_START", START))
    if not start.exists():
        pytest.skip(f"no {start}: set KAFKA_START to a script that starts a broker")
    if shutil.which("java") is None:
        pytest.skip("the broker needs Java 17")
    port = free_port()
    argv = [str(start), str(port), str(tmp_path_factory.mktemp("kafka") / "data")]
    pid = int(subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout)
    yield f"127.0.0.1:{port}"
    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def real_broker(real_bootstrap: str) -> Kafka:
    """Settings for Apache Kafka, with a topic `events` of 4 partitions that nobody else uses."""
    kafka = Kafka(bootstrap=real_bootstrap, prefix=f"t{uuid.uuid4().hex}.", session_timeout_ms=6000)
    log = KafkaLog(kafka)
    log.create_topics({"events": 4})
    log.close()
    return kafka


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`liverank up` with two arms, started once for all the tests that leave it alive."""
    directory = tmp_path_factory.mktemp("stack")
    (directory / "liverank.toml").write_text(TWO_ARMS)
    up = Up(directory, "--settings", str(directory / "liverank.toml"), LOGLEVEL="INFO")
    yield up.until_ready()
    up.end()
