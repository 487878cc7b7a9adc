from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from stream import check
from stream.check import Finding, check_all, check_topics, create_topics
from stream.errors import Retryable
from stream.settings import Checkpoints, ClickHouse, Kafka, Settings

SETTINGS = Settings(kafka=Kafka(partitions=4))


class FakeLog:
    """A broker with these topics; it answers unless `down`."""

    topics: ClassVar[dict[str, int]] = {}
    down = False

    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka

    def ping(self, timeout: float) -> None:
        if self.down:
            raise Retryable("no broker answered")

    def topic_partitions(self) -> dict[str, int]:
        return dict(self.topics)

    def create_topics(self, counts: dict[str, int]) -> None:
        FakeLog.topics = {**self.topics, **counts}

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> type[FakeLog]:
    monkeypatch.setattr(check, "KafkaLog", FakeLog)
    monkeypatch.setattr(FakeLog, "topics", SETTINGS.kafka.counts())
    monkeypatch.setattr(FakeLog, "down", False)
    return FakeLog


def _bad(found: list[Finding]) -> dict[str, str]:
    return {f.what: f.message for f in found if not f.ok}


def test_topics_as_the_settings_want_them_are_all_right() -> None:
    found = check_topics(SETTINGS)
    assert _bad(found) == {}
    assert {f.what: f.message for f in found}["liverank.events"] == "4 partitions"


def test_a_topic_that_is_missing_is_named_with_what_makes_it(log: type[FakeLog]) -> None:
    del log.topics["events"]
    assert _bad(check_topics(SETTINGS)) == {
        "liverank.events": "is missing: liverank topics --create makes it"
    }


def test_a_topic_of_another_size_is_named_with_both(log: type[FakeLog]) -> None:
    log.topics["events"] = 3
    (message,) = _bad(check_topics(SETTINGS)).values()
    assert message.startswith("has 3 partitions, the settings say 4")


def test_creating_makes_what_is_missing_and_leaves_what_is_there(log: type[FakeLog]) -> None:
    log.topics.clear()
    log.topics["events"] = 3
    create_topics(SETTINGS)
    assert log.topics == {**SETTINGS.kafka.counts(), "events": 3}


def test_without_a_broker_topics_are_not_looked_for(log: type[FakeLog], tmp_path: Path) -> None:
    log.down = True
    settings = msgspec.structs.replace(
        SETTINGS,
        checkpoints=Checkpoints(path=str(tmp_path / "store")),
        clickhouse=ClickHouse(url="http://127.0.0.1:1"),
    )
    found = check_all(settings)
    assert [(f.what, f.ok) for f in found] == [("kafka", False), ("clickhouse", False), ("checkpoints", True)]
    assert found[0].message == "no broker answered"
    assert list((tmp_path / "store").iterdir()) == []


def test_a_place_for_checkpoints_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    where = str(tmp_path / "file" / "store")
    found = {
        f.what: f for f in check_all(msgspec.structs.replace(SETTINGS, checkpoints=Checkpoints(path=where)))
    }
    assert not found["checkpoints"].ok
    assert where in found["checkpoints"].message
