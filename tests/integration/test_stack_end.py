"""How a stack ends: when it is told to, when it is killed, when its broker dies. Nothing stays behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.outside import ROLES, Up, running, until

EVERYBODY = {"broker", "clickhouse", *ROLES}


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """Another stack, just started."""
    started = Up(tmp_path)
    yield started
    started.process.kill()
    started.process.wait()


def everybody(up: Up) -> list[int]:
    """Every process of a stack but its own, once they are there."""
    until(lambda: set(up.pids()) == EVERYBODY, 60, lambda: (up.pids(), up.said))
    return list(up.pids().values())


def test_told_to_end_it_ends_within_five_seconds_and_leaves_no_process(up: Up) -> None:
    client = up.until_ready().client
    pids = everybody(up)
    client.event("click", "last", item_id="i")
    client.flush()
    assert up.end(signal.SIGTERM) < 5
    assert up.process.returncode == 0
    assert running(pids) == []
    assert "Traceback" not in up.said


def test_killed_while_it_starts_it_leaves_no_process(up: Up) -> None:
    pids = everybody(up)
    up.end(signal.SIGKILL)
    until(lambda: running(pids) == [], 3, lambda: running(pids))


def test_without_its_broker_it_ends_with_a_message(up: Up) -> None:
    pids = everybody(up)
    began = time.monotonic()
    os.kill(up.pids()["broker"], signal.SIGKILL)
    assert up.process.wait(timeout=10) == 1
    assert time.monotonic() - began < 6
    assert running(pids) == []
    assert "liverank: broker ended (signal SIGKILL)" in up.said
    assert "start the stack again" in up.said
