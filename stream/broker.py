"""The log on Kafka: the only file that imports confluent_kafka."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stream import settings
from stream.errors import Fatal, LiverankError, Retryable, SettingsError
from stream.librdkafka import LARGEST, REFUSED, client, consumer, incremental, meaning, producer
from stream.log import Committed, Gap, Output, Positions, Records, Source

REQUEST_S = 10.0
"""How long a synchronous request may take before it is `Retryable`."""

READER = "reader"
"""Group of the consumer that asks about topics; it never joins."""

COMPACTED = ("items", "recommendations")
"""Topics of which the newest record per key is what counts."""


def translate(error: KafkaError, doing: str) -> LiverankError:
    """Our error for one of librdkafka's; `doing` says what was tried."""
    return meaning(error.name(), f"{doing}: {error.str()}", error.retriable() and not error.fatal())


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise translate(error.args[0], doing) from error


Opened = TypeVar("Opened", "KafkaSink", "_BroadcastSource", "_GroupSource")


class KafkaLog:
    """Topics of a Kafka cluster.

    Parameters
    ----------
    kafka
        Addresses, prefix and librdkafka's options.

    Raises
    ------
    SettingsError
        When librdkafka does not know an option, or refuses its value.
    """

    def __init__(self, kafka: settings.Kafka) -> None:
        self._kafka = kafka
        self._readers: dict[str, Consumer] = {}
        self._opened: list[KafkaSink | _KafkaSource] = []
        self._admin = _client(AdminClient, client(kafka))

    def group_source(
        self,
        topic: str,
        group: str,
        assigned: Callable[[Source, list[int]], Positions],
        revoked: Callable[[list[int]], None],
    ) -> Source:
        """Read a share of the partitions of `topic`; see `Log.group_source`."""
        return self._keep(_GroupSource(self._kafka, topic, group, assigned, revoked))

    def broadcast_source(self, topic: str, start: Positions) -> Source:
        """Read all partitions of `topic`, from `start` or the beginning, in no group."""
        positions = dict.fromkeys(self._partitions(topic), OFFSET_BEGINNING) | start
        return self._keep(_BroadcastSource(self._kafka, topic, positions))

    def sink(self) -> KafkaSink:
        """Publish to any topic."""
        return self._keep(KafkaSink(self._kafka))

    def identity(self, topic: str) -> str:
        """Name of the log of `topic`: cluster, topic, partition count.

        Another cluster's log has other records at the same offsets.
        """
        metadata = self._describe(topic)
        full = self._kafka.topic(topic)
        return f"{metadata.cluster_id}/{full}/{len(metadata.topics[full].partitions)}"

    def ends(self, topic: str) -> Positions:
        """High watermark of each partition."""
        reader, full = self._reader(READER), self._kafka.topic(topic)
        with _translated(f"reading the ends of {full}"):
            return {
                p: reader.get_watermark_offsets(TopicPartition(full, p), timeout=REQUEST_S)[1]
                for p in self._partitions(topic)
            }

    def progress(self, topic: str, group: str) -> dict[int, Committed]:
        """What `group` has committed for each partition of `topic`, without joining the group."""
        return _committed(self._reader(group), self._kafka.topic(topic), self._partitions(topic))

    def ping(self, timeout: float) -> None:
        """Return when a broker answers; raises `Retryable` after `timeout` seconds."""
        with _translated(f"no broker answered at {self._kafka.bootstrap}"):
            self._admin.list_topics(timeout=timeout)

    def topic_partitions(self) -> dict[str, int]:
        """Partitions of every topic that has our prefix, by name without it."""
        with _translated("listing the topics"):
            topics = self._admin.list_topics(timeout=REQUEST_S).topics
        prefix = self._kafka.prefix
        return {
            name.removeprefix(prefix): len(topic.partitions)
            for name, topic in topics.items()
            if name.startswith(prefix)
        }

    def create_topics(self, counts: Mapping[str, int]) -> None:
        """Create topics, by name without prefix; those that exist stay as they are.

        Raises
        ------
        Fatal, Retryable
            When the cluster refuses, or is away.
        """
        topics = [self._new_topic(name, count) for name, count in counts.items()]
        if not topics:  # the client refuses to be asked for nothing
            return
        for name, future in self._admin.create_topics(topics, request_timeout=REQUEST_S).items():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise translate(error.args[0], f"creating topic {name}") from error

    def close(self) -> None:
        """Drop every connection, as if the process had ended.

        Groups are left without calling `revoked`, and what no flush has seen acknowledged is lost; so a
        role may start over in this process and find neither a member nor a queue of its former life.
        """
        for each in self._opened:
            each.abandon()
        for reader in self._readers.values():
            reader.close()
        self._opened.clear()
        self._readers.clear()

    def _keep(self, opened: Opened) -> Opened:
        self._opened.append(opened)
        return opened

    def _new_topic(self, name: str, partitions: int) -> NewTopic:
        config = {
            "cleanup.policy": "compact" if name in COMPACTED else "delete",
            "max.message.bytes": str(LARGEST),
            # retention and lateness are judged by the broker's clock, not by the producers'
            "message.timestamp.type": "LogAppendTime",
        }
        return NewTopic(self._kafka.topic(name), partitions, self._kafka.replication, config=config)

    def _partitions(self, topic: str) -> list[int]:
        return sorted(self._describe(topic).topics[self._kafka.topic(topic)].partitions)

    def _describe(self, topic: str) -> Any:
        full = self._kafka.topic(topic)
        doing = f"looking up topic {full}"
        with _translated(doing):
            # a consumer asks without creating the topic, which a producer's or an admin's question may do
            metadata = self._reader(READER).list_topics(full, timeout=REQUEST_S)
        if (error := metadata.topics[full].error) is not None:
            raise translate(error, doing)
        return metadata

    def _reader(self, group: str) -> Consumer:
        """A consumer that never subscribes, so that it is no member of the group that it asks about."""
        if group not in self._readers:
            self._readers[group] = _client(Consumer, consumer(self._kafka, group))
        return self._readers[group]


class KafkaSink:
    """An idempotent producer. Messages wait for an absent broker, bounded; only a refusal fails them."""

    def __init__(self, kafka: settings.Kafka) -> None:
        self._kafka = kafka
        self._failure: LiverankError | None = None
        self._producer = _client(Producer, producer(kafka) | {"error_cb": self._on_error})

    def publish(self, output: Output) -> None:
        """Queue one record; `Retryable` (it is not queued then) when the queue stays full for 10 s."""
        topic, key, value, partition, headers = output
        full = self._kafka.topic(topic)
        for timeout in (REQUEST_S, 0.0):
            try:
                self._producer.produce(
                    full, value, key, partition, on_delivery=self._on_delivery, headers=list(headers)
                )
                self._producer.poll(0)
                return
            except BufferError:
                self._producer.flush(timeout)
            except KafkaException as error:
                raise translate(error.args[0], f"publishing to {full}") from error
        raise Retryable(
            f"publishing to {full}: the queue is full, brokers {self._kafka.bootstrap} are slow or away"
        )

    def flush(self) -> None:
        """Return when everything queued is acknowledged.

        Raises
        ------
        Retryable
            When some is not acknowledged after 10 s; it stays queued, call again.
        Fatal
            When the cluster has refused a record.
        """
        waiting = self._producer.flush(REQUEST_S)
        if self._failure is not None:
            raise self._failure
        if waiting:
            raise Retryable(
                f"{waiting} records are not acknowledged: brokers {self._kafka.bootstrap} are away"
            )

    def abandon(self) -> None:
        """Forget what is not acknowledged."""
        self._producer.purge()
        self._producer.flush(0)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._failure is None:
            self._failure = Fatal(str(translate(error, f"publishing to {message.topic()}")))

    def _on_error(self, error: KafkaError) -> None:
        if error.name() in REFUSED or error.fatal():
            self._failure = translate(error, f"connecting to {self._kafka.bootstrap}")


class _KafkaSource:
    """What both kinds of sources do: poll, make columns, go on after a gap."""

    _incremental = False

    def __init__(self, kafka: settings.Kafka, topic: str, group: str) -> None:
        self.gaps: list[Gap] = []
        self._topic = topic
        self._full = kafka.topic(topic)
        self._bootstrap = kafka.bootstrap
        self._positions: Positions = {}
        self._expired: Positions = {}
        self._trouble: LiverankError | None = None
        self._consumer = _client(Consumer, consumer(kafka, group) | {"error_cb": self._on_error})

    def poll(self, limit: int, timeout: float) -> list[Records]:
        """Up to about `limit` records, waiting at most `timeout` seconds for the first."""
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble
        for p in list(self._expired):
            self._skip(p)
        with _translated(f"reading {self._full}"):
            # consume() would wait until it has `limit`; so take what is there, else wait for one
            messages = self._consumer.consume(limit, 0)
            if not messages and (first := self._consumer.poll(timeout)) is not None:
                messages = [first, *self._consumer.consume(limit - 1, 0)]
        return self._columns(messages)

    def commit(self, positions: Positions, notes: Mapping[int, str]) -> None:
        """Refused: a broadcast source belongs to no group."""
        raise Fatal(f"a broadcast source of {self._full} has no group to commit for")

    def committed(self, partitions: list[int]) -> dict[int, Committed]:
        """Nothing: a broadcast source belongs to no group."""
        return {}

    def close(self) -> None:
        """Leave the group, if any."""
        with _translated(f"closing the reader of {self._full}"):
            self._consumer.close()

    def abandon(self) -> None:
        """Leave the group, if any, as if the process had ended."""
        self.close()

    def _columns(self, messages: list[Any]) -> list[Records]:
        by_partition: dict[int, list[Any]] = defaultdict(list)
        for message in messages:
            if message.error() is None:
                by_partition[message.partition()].append(message)
            else:
                self._note(message)
        # what was fetched before a rebalance took its partition away is no longer ours
        mine = {p: part for p, part in by_partition.items() if p in self._positions}
        self._positions.update((p, part[-1].offset() + 1) for p, part in mine.items())
        return [
            Records(
                self._topic,
                p,
                [m.offset() for m in part],
                [m.timestamp()[1] for m in part],
                [m.key() for m in part],
                [m.value() for m in part],
            )
            for p, part in mine.items()
        ]

    def _note(self, message: Any) -> None:
        """Keep an error that came among records for the next poll: it must not cost the records."""
        error = message.error()
        if error.code() != KafkaError._AUTO_OFFSET_RESET:
            self._trouble = translate(error, f"reading {self._full}")
        elif message.partition() in self._positions:
            self._expired[message.partition()] = message.offset()

    def _skip(self, p: int) -> None:
        """Go on at the earliest record that is still there."""
        with _translated(f"looking for the earliest record of {self._full}[{p}]"):
            earliest, _ = self._consumer.get_watermark_offsets(
                TopicPartition(self._full, p), timeout=REQUEST_S
            )
            self._start({p: earliest})
        self.gaps.append(Gap(self._topic, p, self._expired.pop(p), earliest))

    def _start(self, positions: Positions) -> None:
        """Read these partitions, ours already or new, from these positions."""
        again = [TopicPartition(self._full, p) for p in positions if p in self._positions]
        self._positions.update(positions)
        reading = positions if self._incremental else self._positions
        parts = [TopicPartition(self._full, p, offset) for p, offset in reading.items()]
        if not self._incremental:
            self._consumer.assign(parts)
            return
        if again:
            self._consumer.incremental_unassign(again)
        self._consumer.incremental_assign(parts)

    def _on_error(self, error: KafkaError) -> None:
        """Trouble with a connection; librdkafka reconnects by itself unless it is refused."""
        if error.name() in REFUSED or error.fatal():
            self._trouble = translate(error, f"connecting to {self._bootstrap}")


class _BroadcastSource(_KafkaSource):
    """Reads all partitions, from given positions, in no group."""

    def __init__(self, kafka: settings.Kafka, topic: str, positions: Positions) -> None:
        super().__init__(kafka, topic, "broadcast")
        self._start(positions)


class _GroupSource(_KafkaSource):
    """Reads the partitions that the group gives it.

    The callback of a rebalance only notes what is new: `assigned` may take long (it replays) or fail
    (and then be tried again), so it is called at the next poll, outside of librdkafka.
    """

    def __init__(
        self,
        kafka: settings.Kafka,
        topic: str,
        group: str,
        assigned: Callable[[Source, list[int]], Positions],
        revoked: Callable[[list[int]], None],
    ) -> None:
        super().__init__(kafka, topic, group)
        self._assigned = assigned
        self._revoked = revoked
        self._new: set[int] = set()
        self._incremental = incremental(kafka)
        self._consumer.subscribe([self._full], on_assign=self._on_assign, on_revoke=self._on_revoke)

    def poll(self, limit: int, timeout: float) -> list[Records]:
        """Up to about `limit` records, waiting at most `timeout` seconds for the first."""
        if self._new:
            self._begin()
        return super().poll(limit, timeout)

    def commit(self, positions: Positions, notes: Mapping[int, str]) -> None:
        """Commit, synchronously."""
        if not positions:
            return
        offsets = [TopicPartition(self._full, p, o, notes.get(p, "")) for p, o in positions.items()]
        with _translated(f"committing {self._full}"):
            done = self._consumer.commit(offsets=offsets, asynchronous=False)
        _raise_first(done, "committing")

    def committed(self, partitions: list[int]) -> dict[int, Committed]:
        """What the group has committed; partitions without a commit are left out."""
        return _committed(self._consumer, self._full, partitions)

    def abandon(self) -> None:
        """Leave the group without calling `revoked`."""
        self._positions.clear()
        super().abandon()

    def _begin(self) -> None:
        new = sorted(self._new)
        start = self._assigned(self, new)
        with _translated(f"starting to read {self._full}"):
            self._start({p: start.get(p, OFFSET_BEGINNING) for p in new})
        self._new.clear()

    def _on_assign(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        # tell the group's coordinator that we agree, reading nothing yet; `_begin` does the rest
        if self._incremental:
            consumer.incremental_assign([])
        else:
            consumer.assign([])
        self._new.update(part.partition for part in parts)

    def _on_revoke(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        gone = {part.partition for part in parts}
        ours = sorted(gone & self._positions.keys())
        self._new -= gone
        for p in ours:
            del self._positions[p]
            self._expired.pop(p, None)
        if ours:
            self._revoked(ours)


def _client(kind: Callable[[dict[str, Any]], Any], config: dict[str, Any]) -> Any:
    """Make a client; librdkafka names the option that it does not like."""
    try:
        return kind(config)
    except KafkaException as error:
        raise SettingsError(f"[kafka.options] {error.args[0].str()}") from error


def _committed(consumer: Consumer, full: str, partitions: list[int]) -> dict[int, Committed]:
    with _translated(f"reading what is committed for {full}"):
        found = consumer.committed([TopicPartition(full, p) for p in partitions], timeout=REQUEST_S)
    _raise_first(found, "reading what is committed for")
    return {each.partition: Committed(each.offset, each.metadata or "") for each in found if each.offset >= 0}


def _raise_first(answers: list[TopicPartition] | None, doing: str) -> None:
    for each in answers or ():
        if each.error is not None:
            raise translate(each.error, f"{doing} {each.topic}[{each.partition}]")
