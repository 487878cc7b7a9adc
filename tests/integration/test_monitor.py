"""The monitor against a broker and ClickHouse, both real enough to lose a process in the middle."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from confluent_kafka import Consumer, Producer

from stream.messages import Outcomes, encode_binary
from tests.conftest import T0

TOPICS = "liverank.outcomes:4,liverank.alerts:1,liverank.dead-letters:1"
MONITOR = """
from stream.monitor.app import run
from stream.settings import load
import os
run(load(None, os.environ), lambda: print("ready", flush=True))
"""


def wait(check, seconds=60.0):
    """What `check` returns, as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (got := check()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return got


@pytest.fixture
def broker():
    command = [sys.executable, "-m", "stream.embedded.broker", "--topics", TOPICS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield json.loads(process.stdout.readline())["bootstrap"]
        process.kill()


@pytest.fixture
def monitor(broker, store):
    """Start a monitor; all are ended with the test."""
    processes = []

    def start(until_ready=True, **variables):
        environ = os.environ | {
            "LIVERANK_KAFKA_BOOTSTRAP": broker,
            "LIVERANK_KAFKA_SESSION_TIMEOUT_MS": "2000",
            "LIVERANK_CLICKHOUSE_URL": store.settings.url,
            "LIVERANK_CLICKHOUSE_DATABASE": store.settings.database,
            **variables,
        }
        process = subprocess.Popen(
            [sys.executable, "-c", MONITOR],
            env=environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        processes.append(process)
        if until_ready:
            assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def producer(broker):
    return Producer({"bootstrap.servers": broker, "linger.ms": 1})


def outcomes(partition, block, version, clicks):
    where = {"second": [T0], "arm": ["fresh"], "surface": [""], "position": [1]}
    counts = {"impressions": [version], "clicks": [clicks], "carts": [0], "purchases": [0], "revenue": [0.0]}
    truth = {"second": [T0], "arm": ["a"], "impressions": [1], "expected": [0.5], "best": [1.0]}
    cubes = {"ctr": where | counts, "truth": truth}
    return encode_binary(
        Outcomes(source="rank", partition=partition, block=block, version=version, cubes=cubes)
    )


def read(broker, topic, count):
    consumer = Consumer(
        {"bootstrap.servers": broker, "group.id": f"test-{topic}", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    messages = []
    wait(lambda: messages.extend(consumer.consume(count, 0.2)) or len(messages) >= count)
    consumer.close()
    return messages


def totals(store):
    rows = store.query("SELECT sum(impressions) AS i, sum(clicks) AS c FROM {db}.ctr")
    return rows[0]["i"], rows[0]["c"]


def test_killed_in_the_middle_counts_exactly_once(monitor, producer, store):
    chance = random.Random(0)
    messages = [(p, b, v) for b in range(5) for v in range(1, 101) for p in range(4)]
    first = monitor()
    for number, (p, b, v) in enumerate(messages):
        producer.produce("liverank.outcomes", outcomes(p, b, v, clicks=2 * v), partition=p)
        if chance.random() < 0.05:
            # some were sent twice, as by a rank that came back after a crash
            producer.produce("liverank.outcomes", outcomes(p, b, v, clicks=2 * v), partition=p)
        if number == len(messages) // 2:
            producer.flush()
            wait(lambda: totals(store) != (0, 0))
            os.kill(first.pid, signal.SIGKILL)
    producer.flush()
    assert totals(store) != (2000, 4000)
    monitor()
    assert wait(lambda: totals(store) == (2000, 4000))
    time.sleep(1)
    assert totals(store) == (2000, 4000)


def test_undecodable_outcomes_go_to_dead_letters_and_the_rest_is_stored(monitor, producer, store, broker):
    producer.produce("liverank.outcomes", b"junk", key=b"k", partition=2)
    producer.produce("liverank.outcomes", outcomes(2, 0, 7, clicks=1), partition=2)
    producer.flush()
    monitor()
    wait(lambda: totals(store) == (7, 1))
    [letter] = read(broker, "liverank.dead-letters", 1)
    headers = dict(letter.headers())
    assert (letter.key(), letter.value()) == (b"k", b"junk")
    assert (headers["topic"], headers["partition"], headers["offset"]) == (b"outcomes", b"2", b"0")
    assert headers["reason"] == b"Expected `array`, got `int`"


def test_alert_is_published_and_stored(monitor, store, broker, put):
    put("health", f"second role counter count\n {int(time.time()) - T0} rank misrouted 3")
    monitor()
    [message] = read(broker, "liverank.alerts", 1)
    alert = json.loads(message.value())
    assert (message.key(), alert["rule"], alert["values"]) == (b"misrouted", "misrouted", {"misrouted": 3})
    assert wait(lambda: store.query("SELECT rule FROM {db}.alerts")) == [{"rule": "misrouted"}]


def test_told_to_end_it_ends_and_prints_nothing(monitor):
    process = monitor()
    process.terminate()
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")


def test_clickhouse_away_is_waited_for(monitor):
    process = monitor(until_ready=False, LIVERANK_CLICKHOUSE_URL="http://127.0.0.1:1")
    assert any("trying again" in line for line in process.stderr)
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_broker_away_ends_it_with_a_message(monitor):
    process = monitor(until_ready=False, LIVERANK_KAFKA_BOOTSTRAP="127.0.0.1:1")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Fatal: Kafka at 127.0.0.1:1" in errors
