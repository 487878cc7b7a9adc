"""Recorded streams of real shops into a fresh stack: no dead letter, every event accounted for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.outside import ROOT, Command, Up, until

DATA = ROOT.parent / "shared" / "data"
RECORDINGS = {
    "rees46": "rees46_oct2019_head.csv.gz",
    "trivago": "trivago_half.csv.gz",
    "tmall": "tmall_events.csv.gz",
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Up]:
    """A stack that has seen nothing, with the default settings."""
    up = Up(tmp_path)
    yield up.until_ready()
    up.end()


@pytest.mark.parametrize("kind", RECORDINGS)
def test_a_recording_is_learned_whole(fresh: Up, tmp_path: Path, kind: str) -> None:
    file = DATA / RECORDINGS[kind]
    if not file.exists():
        pytest.skip(f"no {file.name} in ../shared/data")
    began = time.monotonic()
    command = Command(
        tmp_path / "replay", "replay", str(file), "--format", kind, "--ready-file", str(fresh.ready_file)
    )
    assert command.process.wait(timeout=500) == 0, command.said + fresh.said
    client = fresh.client
    until(client.balanced, 10, client.health)
    taken, health = time.monotonic() - began, client.health()
    print(f"{kind}: {taken:.0f} s\n{command.said}rank {health}\ntrain {client.health('train')}")
    assert health["processed"] == client.end_of("events")
    assert "dead" not in health
    assert "lost" not in health
    assert client.end_of("dead-letters") == 0
    assert "ended" not in fresh.said
