"""What the log on Kafka does without a broker; with one: tests/integration."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import KafkaError

from stream import broker
from stream.broker import KafkaLog
from stream.embedded.stack import free_port
from stream.errors import Fatal, Retryable, SettingsError
from stream.log import Output
from stream.settings import Kafka


@pytest.fixture
def nobody() -> Kafka:
    """A cluster that does not answer."""
    return Kafka(bootstrap=f"127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"no.such.option": 1}, 'No such configuration property: "no.such.option"'),
        ({"socket.timeout.ms": "soon"}, "socket.timeout.ms"),
    ],
)
def test_an_option_that_librdkafka_refuses_is_named(options: dict[str, str | int], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        KafkaLog(Kafka(options=options))


def test_an_absent_broker_is_retryable_and_named(nobody: Kafka) -> None:
    with pytest.raises(Retryable, match=nobody.bootstrap):
        KafkaLog(nobody).ping(0.2)


def test_unacknowledged_records_stay_queued(nobody: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "REQUEST_S", 0.1)
    sink = KafkaLog(nobody).sink()
    sink.publish(Output("events", b"u", b"1"))
    for _ in range(2):
        with pytest.raises(Retryable, match="1 records are not acknowledged"):
            sink.flush()


def test_a_full_queue_is_retryable(nobody: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "REQUEST_S", 0.1)
    kafka = Kafka(bootstrap=nobody.bootstrap, options={"queue.buffering.max.messages": 2})
    sink = KafkaLog(kafka).sink()
    sink.publish(Output("events", b"u", b"1"))
    sink.publish(Output("events", b"u", b"2"))
    with pytest.raises(Retryable, match="queue is full"):
        sink.publish(Output("events", b"u", b"3"))


def test_a_log_without_a_broker_closes_at_once_and_forgets_what_waits(nobody: Kafka) -> None:
    log = KafkaLog(nobody)
    sink = log.sink()
    sink.publish(Output("events", b"u", b"1"))
    source = log.group_source("events", "rank", lambda _, __: {}, lambda _: None)
    assert source.poll(10, 0.1) == []
    began = time.monotonic()
    log.close()
    assert time.monotonic() - began < 2.0
    with pytest.raises(Fatal, match="publishing to liverank"):
        sink.flush()


def test_a_refused_connection_is_fatal_at_the_next_poll_and_flush(nobody: Kafka) -> None:
    refusal = KafkaError(KafkaError._AUTHENTICATION, "wrong password")
    log = KafkaLog(nobody)
    source, sink = log.group_source("events", "rank", lambda _, __: {}, lambda _: None), log.sink()
    for each, use in ((source, lambda: source.poll(1, 0)), (sink, sink.flush)):
        each._on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
        use()
        each._on_error(refusal)
        with pytest.raises(Fatal, match=r"wrong password.*sasl"):
            use()
    log.close()
