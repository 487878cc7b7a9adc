"""The embedded stack as a whole, with small programs in the place of the roles."""

from __future__ import annotations

import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from stream.broker import KafkaLog
from stream.embedded import stack as stack_module
from stream.embedded.stack import Stack, supervise_roles
from stream.embedded.supervisor import Child
from stream.errors import Fatal
from stream.settings import Kafka, Settings, load

ROLE = """
import os, pathlib, time
pathlib.Path(os.environ["ROLE_READY_FILE"] + ".env").write_text(repr(dict(os.environ)))
pathlib.Path(os.environ["ROLE_READY_FILE"]).touch()
time.sleep(60)
"""


def roles_that_run(code: str) -> Callable[..., list[Child]]:
    """Stands in for `role_children`: one role, called rank, that runs `code`."""

    def children(directory: Path, arguments: tuple[str, ...], environ: dict[str, str]) -> list[Child]:
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / "rank"
        argv = (sys.executable, "-c", code, *arguments)
        return [Child("rank", argv, {**environ, "ROLE_READY_FILE": str(file)}, ready_file=file)]

    return children


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ask(url: str, sql: str) -> bytes:
    with urllib.request.urlopen(url, data=sql.encode(), timeout=5) as answer:
        return answer.read()


def test_servers_are_there_for_the_block_and_gone_after_it(tmp_path: Path) -> None:
    with Stack(Settings(kafka=Kafka(partitions=2, prefix="p.")), tmp_path, print, roles=False) as stack:
        addresses = stack.addresses
        log = KafkaLog(Kafka(bootstrap=addresses["kafka"], prefix="p."))
        assert log.topic_partitions() == Kafka(partitions=2).counts()
        assert addresses["topics"]["events"] == "p.events"
        assert ask(addresses["clickhouse"], "SELECT 1") == b"1\n"
        pids = stack.supervisor.pids()
        assert set(pids) == {"broker", "clickhouse"}
        log.close()
    assert not any(map(alive, pids.values()))


def test_a_clickhouse_that_dies_comes_back_where_it_was_with_its_data(tmp_path: Path) -> None:
    reports: list[str] = []
    with Stack(Settings(), tmp_path, reports.append, roles=False) as stack:
        url = stack.addresses["clickhouse"]
        ask(url, "CREATE TABLE t (a Int64) ENGINE = MergeTree ORDER BY a AS SELECT 7 AS a")
        os.kill(stack.supervisor.pids()["clickhouse"], signal.SIGKILL)

        def died_and_came_back() -> bool:
            stack.watch()
            return bool(reports) and stack.supervisor.ready("clickhouse") is not None

        until(died_and_came_back)
        assert ask(url, "SELECT a FROM t") == b"7\n"
        assert "signal SIGKILL" in reports[0]


def test_the_stack_ends_when_its_broker_dies(tmp_path: Path) -> None:
    reached = time.monotonic() + 10
    stack = Stack(Settings(), tmp_path, print, stop=lambda: time.monotonic() > reached, roles=False)
    with stack:
        pids = stack.supervisor.pids()
        os.kill(pids["broker"], signal.SIGKILL)
        with pytest.raises(Fatal, match=r"broker ended \(signal SIGKILL\).*the log is gone with it"):
            stack.run()
    assert not any(map(alive, pids.values()))


def test_roles_read_the_stacks_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_module, "role_children", roles_that_run(ROLE))
    environ = {**os.environ, "LIVERANK_KAFKA_BOOTSTRAP": "elsewhere:1"}
    settings = Settings(kafka=Kafka(options={"security.protocol": "SSL"}))
    with Stack(settings, tmp_path, print, environ=environ) as stack:
        seen = eval((tmp_path / "rank.env").read_text())
        read = load(tmp_path / "settings.toml", {k: v for k, v in seen.items() if k != "ROLE_READY_FILE"})
        assert read == stack.settings
        assert read.kafka.bootstrap == stack.addresses["kafka"]
        assert read.kafka.session_timeout_ms == 2000
        assert read.kafka.options == {}
        assert read.checkpoints.path == str(tmp_path / "checkpoints")


def test_a_start_that_is_asked_to_end_leaves_nothing_behind(tmp_path: Path) -> None:
    stack = Stack(Settings(), tmp_path, print, stop=lambda: True, roles=False)
    with pytest.raises(KeyboardInterrupt), stack:
        pass
    assert stack.supervisor.pids() == {}


def test_roles_alone_run_until_they_are_asked_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stack_module, "role_children", roles_that_run(ROLE))
    reports: list[str] = []
    asked: list[bool] = []

    def stop() -> bool:
        asked.append((tmp_path / ".liverank/rank").exists())
        return sum(asked) > 10

    supervise_roles(None, stop, reports.append)
    assert reports == []


def test_roles_alone_that_keep_dying_are_fatal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stack_module, "role_children", roles_that_run("raise SystemExit('no broker')"))
    reports: list[str] = []
    with pytest.raises(Fatal, match=r"(?s)given up.*no broker"):
        supervise_roles(None, lambda: False, reports.append)
    assert len(reports) == 4
