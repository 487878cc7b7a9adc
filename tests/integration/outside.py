"""Somebody outside: runs the `liverank` command, speaks plain Kafka and ClickHouse HTTP, sees processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Consumer, Message, Producer, TopicPartition

ROLES = ("rank", "train", "monitor")
PREFIX = "liverank."
START_S = 200
ROOT = Path(__file__).parents[2]
QUIET = {"log_level": 0}
"""That a broker ends before its clients is no news here."""


class Place(NamedTuple):
    """Where a record is in its log."""

    partition: int
    offset: int


class Arrived(NamedTuple):
    """A record as it was read, and when (`time.monotonic`)."""

    at: float
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]
    place: Place


def until(check: Callable[[], Any], seconds: float = 30.0, why: Callable[[], Any] = str) -> Any:
    """What `check` returns, as soon as it is true; `why` says what there was instead."""
    deadline = time.monotonic() + seconds
    while not (got := check()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain {why()}"
        time.sleep(0.05)
    return got


class Client:
    """A shop that publishes and asks."""

    def __init__(self, kafka: str, clickhouse: str, prefix: str = PREFIX, database: str = "liverank") -> None:
        self.kafka, self.clickhouse, self.prefix, self.database = kafka, clickhouse, prefix, database
        self._producer = Producer(
            {
                **QUIET,
                "bootstrap.servers": kafka,
                "linger.ms": 1,
                "partitioner": "murmur2_random",
                "message.max.bytes": 20_000_000,
            }
        )

    def send(self, topic: str, value: bytes | None, key: Any = None, **where: Any) -> list[Place]:
        """Queue one record; the list gets its place once it is acknowledged (see `flush`)."""
        place: list[Place] = []

        def done(error: Any, message: Message) -> None:
            assert error is None, error
            place.append(Place(message.partition(), message.offset()))

        while True:
            try:
                self._producer.produce(self.prefix + topic, value, key, on_delivery=done, **where)
                break
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)
        return place

    def flush(self) -> None:
        """Return when everything is acknowledged."""
        assert self._producer.flush(30) == 0

    def event(self, kind: str, user: str, **fields: Any) -> list[Place]:
        """Queue one event."""
        value = {"type": kind, "user_id": user, "ts": now_ms(), **fields}
        return self.send("events", json.dumps(value).encode(), user)

    def item(self, item_id: str, **fields: Any) -> list[Place]:
        """Queue one entry of the catalogue."""
        return self.send("items", json.dumps({"item_id": item_id, **fields}).encode(), item_id)

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a query over ClickHouse's HTTP interface."""
        settings = "output_format_json_quote_64bit_integers=0"
        request = f"{self.clickhouse}/?database={self.database}&{settings}"
        body = f"{sql} FORMAT JSONEachRow".encode()
        with urllib.request.urlopen(request, body, timeout=30) as answer:
            return [json.loads(line) for line in answer]

    def health(self, role: str = "rank") -> dict[str, int]:
        """Counters of a role, reasons added up."""
        sql = f"SELECT counter, sum(count) AS n FROM health WHERE role = '{role}' GROUP BY counter"
        return {row["counter"]: row["n"] for row in self.ask(sql)}

    def balanced(self) -> bool:
        """Whether `health` accounts for every record of `events`, none forgotten and none twice."""
        n = Counter(self.health())
        became = n["processed"] + n["repeated"] + n["dead"] + n["capped"]
        return n["consumed"] + n["lost"] == self.end_of("events") and n["consumed"] == became

    def end_of(self, topic: str) -> int:
        """Records that a topic has taken, all partitions together."""
        consumer = Consumer({**QUIET, "bootstrap.servers": self.kafka, "group.id": "ends"})
        full = self.prefix + topic
        parts = consumer.list_topics(full, timeout=10).topics[full].partitions
        total = sum(consumer.get_watermark_offsets(TopicPartition(full, p), timeout=10)[1] for p in parts)
        consumer.close()
        return total


class Reader:
    """Reads a topic in a thread, from where it ends now, for the time of a ``with`` block."""

    def __init__(self, client: Client, topic: str, **options: Any) -> None:
        self.arrived: list[Arrived] = []
        self._over = threading.Event()
        self._consumer = Consumer(
            {
                **QUIET,
                "bootstrap.servers": client.kafka,
                "group.id": "outside",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 5,
                "fetch.queue.backoff.ms": 5,
                "fetch.message.max.bytes": 20_000_000,
                **options,
            }
        )
        full = client.prefix + topic
        parts = [
            TopicPartition(full, p)
            for p in self._consumer.list_topics(full, timeout=10).topics[full].partitions
        ]
        for part in parts:
            part.offset = self._consumer.get_watermark_offsets(part, timeout=10)[1]
        self._consumer.assign(parts)
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._consumer.close()

    def _read(self) -> None:
        while not self._over.is_set():
            message = self._consumer.poll(0.05)
            if message is not None and message.error() is None:
                place = Place(message.partition(), message.offset())
                headers = dict(message.headers() or ())
                self.arrived.append(Arrived(time.monotonic(), message.key(), message.value(), headers, place))


class Command:
    """The `liverank` command in a process of its own, in `directory`; what it says goes to files there."""

    def __init__(self, directory: Path, *arguments: str, **environ: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._out, self._err = directory / "out", directory / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stream.cli", *arguments],
                stdout=out,
                stderr=err,
                cwd=directory,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | environ,
            )

    @property
    def said(self) -> str:
        """What it has written to stderr."""
        return self._err.read_text()

    @property
    def printed(self) -> str:
        """What it has written to stdout."""
        return self._out.read_text()

    def pids(self) -> dict[str, int]:
        """Its children by name."""
        return {name_of(pid): pid for pid in children(self.process.pid)}

    def kill(self, role: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a child; returns its pid."""
        pid = self.pids()[role]
        os.kill(pid, number)
        return pid

    def end(self, number: int = signal.SIGTERM) -> float:
        """Send it a signal; returns the seconds until it has ended."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=30)
        return time.monotonic() - began


class Up(Command):
    """`liverank up`."""

    def __init__(self, directory: Path, *arguments: str, **environ: str) -> None:
        self.ready_file, self.data = directory / "ready.json", directory / "data"
        where = ("--directory", str(self.data), "--ready-file", str(self.ready_file))
        super().__init__(directory, "up", *where, *arguments, **environ)

    def until_ready(self) -> Up:
        """Wait until it answers; gives it a client."""
        file, process = self.ready_file, self.process
        until(lambda: file.exists() or process.poll() is not None, START_S, lambda: self.said)
        assert file.exists(), self.said
        addresses = json.loads(file.read_text())
        self.client = Client(addresses["kafka"], addresses["clickhouse"])
        return self


def children(pid: int) -> list[int]:
    """Processes that `pid` has started and that run."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def name_of(pid: int) -> str:
    """Role or service, by the command line."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    for word in words:
        name = word.rpartition(".")[2]
        if word in ROLES or word in ("stream.embedded.broker", "stream.embedded.clickhouse"):
            return name
    return " ".join(words)


def running(pids: Iterator[int] | list[int]) -> list[int]:
    """Those of `pids` that run, zombies not counted."""
    return [pid for pid in pids if _state(pid) not in ("", "Z", "X")]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def now_ms() -> int:
    """Now, as events give it."""
    return time.time_ns() // 1_000_000
