"""How librdkafka's errors and options are read."""

from __future__ import annotations

import pytest

from stream import librdkafka
from stream.errors import Fatal, Retryable
from stream.settings import Kafka


@pytest.mark.parametrize("name", sorted(librdkafka.TRANSIENT))
def test_who_is_away_for_a_moment_is_retried(name: str) -> None:
    assert isinstance(librdkafka.meaning(name, "reading", retriable=False), Retryable)


def test_an_error_that_librdkafka_would_retry_is_retried() -> None:
    assert isinstance(librdkafka.meaning("KAFKA_STORAGE_ERROR", "reading", retriable=True), Retryable)
    assert isinstance(librdkafka.meaning("KAFKA_STORAGE_ERROR", "reading", retriable=False), Fatal)


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (librdkafka.REFUSED, "sasl"),
        (librdkafka.NO_TOPIC, "liverank topics"),
        (librdkafka.REPLACED, "taken these partitions over"),
        ({"INVALID_SESSION_TIMEOUT"}, "session_timeout_ms"),
        ({"MSG_SIZE_TOO_LARGE"}, "max.message.bytes"),
    ],
)
def test_a_fatal_error_says_what_to_do(names: set[str], advice: str) -> None:
    for name in names:
        error = librdkafka.meaning(name, "reading", retriable=True)
        assert isinstance(error, Fatal)
        assert advice in str(error)


def test_the_users_options_win() -> None:
    kafka = Kafka(options={"fetch.wait.max.ms": 100, "linger.ms": 50})
    assert librdkafka.consumer(kafka, "rank")["fetch.wait.max.ms"] == 100
    assert librdkafka.producer(kafka)["linger.ms"] == 50


def test_sessions_follow_the_settings_unless_the_broker_decides() -> None:
    assert librdkafka.consumer(Kafka(session_timeout_ms=3000), "rank")["session.timeout.ms"] == 3000
    assert "session.timeout.ms" not in librdkafka.consumer(
        Kafka(options={"group.protocol": "consumer"}), "rank"
    )
