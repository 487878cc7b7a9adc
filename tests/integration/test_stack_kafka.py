"""The roles on Apache Kafka and the embedded ClickHouse, as on servers of the user's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.outside import ROLES, Client, Command, until
from tests.integration.traffic import Traffic, click_is_answered

pytestmark = pytest.mark.kafka


class Roles(Command):
    """`liverank run`, all roles ready, on topics and a database of their own."""

    def __init__(self, directory: Path, kafka: str, clickhouse: str) -> None:
        prefix, database = f"r{uuid.uuid4().hex}.", f"r{uuid.uuid4().hex}"
        self.settings = {
            "LIVERANK_KAFKA_BOOTSTRAP": kafka,
            "LIVERANK_KAFKA_PREFIX": prefix,
            "LIVERANK_CLICKHOUSE_URL": clickhouse,
            "LIVERANK_CLICKHOUSE_DATABASE": database,
            "LIVERANK_CHECKPOINTS_PATH": str(directory / "checkpoints"),
            "LIVERANK_CHECKPOINTS_SECONDS": "1.0",
        }
        self.directory = directory
        self.client = Client(kafka, clickhouse, prefix, database)
        self.once("topics", "--create")
        self.once("check")
        super().__init__(directory, "run", **self.settings)
        self.ready = directory / ".liverank" / "ready"
        until(lambda: all((self.ready / role).exists() for role in ROLES), 120, lambda: self.said)

    def once(self, *arguments: str) -> str:
        """Run a command to its end; returns what it printed."""
        command = Command(self.directory / arguments[0], *arguments, **self.settings)
        assert command.process.wait(timeout=60) == 0, command.printed + command.said
        return command.printed


@pytest.fixture(scope="module")
def roles(
    tmp_path_factory: pytest.TempPathFactory, real_bootstrap: str, clickhouse_url: str
) -> Iterator[Roles]:
    started = Roles(tmp_path_factory.mktemp("roles"), real_bootstrap, clickhouse_url)
    yield started
    started.end()


def test_topics_are_made_once_and_found_by_check(roles: Roles) -> None:
    assert "bad" not in roles.once("topics", "--create")
    printed = roles.once("check", "--json")
    assert '"ok": false' not in printed
    assert f'"{roles.client.prefix}events"' in printed


def test_clicks_are_answered_and_counted_exactly(roles: Roles) -> None:
    with Traffic(roles.client, "plain") as traffic:
        click_is_answered(roles.client, "clicker", lambda: roles.said)
    traffic.is_counted_exactly()


def test_rank_killed_on_kafka_counts_exactly(roles: Roles) -> None:
    with Traffic(roles.client, "killed") as traffic:
        until(lambda: traffic.lists > 200)
        pid = roles.kill("rank")
        until(lambda: roles.pids().get("rank", pid) != pid, 10, lambda: roles.said)
        until((roles.ready / "rank").exists, 60, lambda: roles.said)
        until(lambda: traffic.lists > 600)
    traffic.is_counted_exactly()
    click_is_answered(roles.client, "after", lambda: roles.said)


def test_told_to_end_the_roles_end(roles: Roles) -> None:
    pids = roles.pids()
    assert set(pids) == set(ROLES)
    assert roles.end() < 6
    assert roles.process.returncode == 0
