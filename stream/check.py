"""Whether everything that liverank needs is there: servers, topics, a place for checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from stream import checkpoint, clickhouse
from stream.broker import KafkaLog
from stream.errors import LiverankError
from stream.settings import Settings

PATIENCE_S = 5.0


class Finding(NamedTuple):
    """One thing looked at: whether it is all right, and what was found or how to mend it."""

    what: str
    ok: bool
    message: str


def check_all(settings: Settings) -> list[Finding]:
    """Look at the broker, the topics, ClickHouse and the checkpoint store."""
    kafka = settings.kafka
    broker = _try("kafka", f"{kafka.bootstrap} answers", lambda: KafkaLog(kafka).ping(PATIENCE_S))
    found = [broker]
    if broker.ok:
        found += check_topics(settings)
    url = settings.clickhouse.url
    found.append(
        _try("clickhouse", f"{url} answers", lambda: clickhouse.Store(settings.clickhouse).query("SELECT 1"))
    )
    path = Path(settings.checkpoints.path)
    found.append(_try("checkpoints", f"{path} can be written", lambda: _write(path)))
    return found


def check_topics(settings: Settings) -> list[Finding]:
    """Compare the topics there are with those that the roles need."""
    kafka = settings.kafka
    there = KafkaLog(kafka).topic_partitions()
    found = []
    for name, count in kafka.counts().items():
        topic = kafka.topic(name)
        have = there.get(name)
        if have is None:
            found.append(Finding(topic, False, "is missing: liverank topics --create makes it"))
        elif have != count:
            hint = f"has {have} partitions, the settings say {count}: "
            hint += "set kafka.partitions to what there is, or make the topic anew (users would move)"
            found.append(Finding(topic, False, hint))
        else:
            found.append(Finding(topic, True, f"{have} partition{'s' * (have > 1)}"))
    return found


def create_topics(settings: Settings) -> None:
    """Create the topics that are missing; those that are there stay as they are."""
    log = KafkaLog(settings.kafka)
    there = log.topic_partitions()
    log.create_topics({name: n for name, n in settings.kafka.counts().items() if name not in there})


def _write(path: Path) -> None:
    store = checkpoint.Store(path)
    store.put("check", b"")
    (path / "check").unlink()


def _try(what: str, fine: str, look: Callable[[], object]) -> Finding:
    try:
        look()
    except LiverankError as error:
        return Finding(what, False, str(error))
    return Finding(what, True, fine)
