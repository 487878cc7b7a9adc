"""What we ask of librdkafka and how we read its errors: options and names, no client imported."""

from __future__ import annotations

import logging
from typing import Any

from stream import settings
from stream.errors import Fatal, LiverankError, Retryable

LARGEST = 20_000_000
"""Bytes of the largest message: examples of wide lists pass librdkafka's default of 1 MB."""

REFUSED = frozenset(
    {
        "_AUTHENTICATION",
        "_SSL",
        "SASL_AUTHENTICATION_FAILED",
        "TOPIC_AUTHORIZATION_FAILED",
        "GROUP_AUTHORIZATION_FAILED",
        "CLUSTER_AUTHORIZATION_FAILED",
    }
)
"""The cluster does not let us."""

NO_TOPIC = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"})

REPLACED = frozenset(
    {
        "ILLEGAL_GENERATION",
        "UNKNOWN_MEMBER_ID",
        "FENCED_INSTANCE_ID",
        "FENCED_MEMBER_EPOCH",
        "STALE_MEMBER_EPOCH",
        "_ASSIGNMENT_LOST",
    }
)
"""The group has given our partitions to somebody else."""

TRANSIENT = frozenset(
    {
        "_TRANSPORT",
        "_ALL_BROKERS_DOWN",
        "_TIMED_OUT",
        "_TIMED_OUT_QUEUE",
        "_MSG_TIMED_OUT",
        "_RESOLVE",
        "_WAIT_COORD",
        "_MAX_POLL_EXCEEDED",
        "COORDINATOR_LOAD_IN_PROGRESS",
        "COORDINATOR_NOT_AVAILABLE",
        "NOT_COORDINATOR",
        "REBALANCE_IN_PROGRESS",
        "LEADER_NOT_AVAILABLE",
        "NOT_LEADER_FOR_PARTITION",
        "REQUEST_TIMED_OUT",
        "NETWORK_EXCEPTION",
    }
)
"""Somebody is away for a moment; librdkafka does not call all of these retriable."""


def meaning(name: str, text: str, retriable: bool) -> LiverankError:
    """What an error means to us; it says what to do where somebody can do something.

    Parameters
    ----------
    name
        librdkafka's name of the error.
    text
        What was tried, and what librdkafka said.
    retriable
        Whether librdkafka, too, thinks that the same call may succeed later.

    Examples
    --------
    >>> meaning("_TRANSPORT", "reading t: broker is down", retriable=False)
    Retryable('reading t: broker is down (_TRANSPORT)')
    >>> meaning("UNKNOWN_TOPIC_OR_PART", "reading t: no such topic", retriable=True)  # doctest: +ELLIPSIS
    Fatal('reading t: no such topic (UNKNOWN_TOPIC_OR_PART); create the topics with `liverank topics`, ...
    """
    text = f"{text} ({name})"
    if name in REFUSED:
        return Fatal(f"{text}; check security.protocol, sasl.* and ssl.* in [kafka.options], and the ACLs")
    if name in NO_TOPIC:
        return Fatal(f"{text}; create the topics with `liverank topics`, or check [kafka] prefix")
    if name in REPLACED:
        return Fatal(f"{text}; another member of the group has taken these partitions over")
    if name == "INVALID_SESSION_TIMEOUT":
        return Fatal(f"{text}; raise [kafka] session_timeout_ms to the brokers' group.min.session.timeout.ms")
    if name == "MSG_SIZE_TOO_LARGE":
        return Fatal(
            f"{text}; raise max.message.bytes of the topic to {LARGEST}, as `liverank topics` sets it"
        )
    return Retryable(text) if retriable or name in TRANSIENT else Fatal(text)


def client(kafka: settings.Kafka) -> dict[str, Any]:
    """Options of every client; the user's own win."""
    return {
        "bootstrap.servers": kafka.bootstrap,
        "log.connection.close": False,
        "logger": logging.getLogger(__name__),
        **kafka.options,
    }


def consumer(kafka: settings.Kafka, group: str) -> dict[str, Any]:
    """Options of a consumer; `group` without prefix.

    Examples
    --------
    >>> consumer(settings.Kafka(), "rank")["group.id"]
    'liverank.rank'
    """
    options: dict[str, Any] = {
        "group.id": kafka.prefix + group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # positions are ours; one that is out of range is a gap to be counted, not to be jumped over
        "auto.offset.reset": "error",
        # the pause after the local queue was full, 1 s by default, costs most of the throughput
        "fetch.queue.backoff.ms": 5,
        # how long an empty fetch waits at the broker; the embedded one makes every event wait for it
        "fetch.wait.max.ms": 5,
    }
    if kafka.options.get("group.protocol") != "consumer":
        options["session.timeout.ms"] = kafka.session_timeout_ms
        # members learn of a rebalance at a heartbeat
        options["heartbeat.interval.ms"] = max(100, kafka.session_timeout_ms // 6)
    return options | client(kafka)


def producer(kafka: settings.Kafka) -> dict[str, Any]:
    """Options of a producer that repeats nothing and gives nothing up."""
    return {
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": 1,
        "compression.type": "lz4",
        # so that a key's records land where Java's clients put them
        "partitioner": "murmur2_random",
        "message.max.bytes": LARGEST,
        # an absent broker is waited for: a flush says so, and nothing has to be published twice
        "message.timeout.ms": 0,
        "queue.buffering.max.kbytes": 256 * 1024,
        "delivery.report.only.error": True,
    } | client(kafka)


def incremental(kafka: settings.Kafka) -> bool:
    """Whether rebalances add and take single partitions, instead of starting over.

    Examples
    --------
    >>> incremental(settings.Kafka()), incremental(settings.Kafka(options={"group.protocol": "consumer"}))
    (False, True)
    """
    strategy = str(kafka.options.get("partition.assignment.strategy", ""))
    return kafka.options.get("group.protocol") == "consumer" or "cooperative" in strategy
