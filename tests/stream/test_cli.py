"""The command: help with an example, errors that say what to do, exit codes 0, 1 and 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from stream.cli import _of_stack, app
from stream.errors import SettingsError
from stream.settings import Settings

COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


def _liverank(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stream.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_commands_are_those_promised() -> None:
    assert {"check", "demo", "replay", "report", "run", "topics", "up"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"Example: liverank {command}" in shown.output


def test_a_wrong_setting_is_named_and_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "liverank.toml").write_text("[kafka]\npartitons = 3\n")
    done = _liverank("check", cwd=tmp_path)
    assert done.returncode == 2
    assert "partitons" in done.stderr
    assert "partitions" in done.stderr


def test_a_role_that_is_none_exits_with_2(tmp_path: Path) -> None:
    done = _liverank("run", "rnak", cwd=tmp_path)
    assert done.returncode == 2
    assert "rank, train, monitor" in done.stderr


def test_a_speed_that_is_none_exits_with_2(tmp_path: Path) -> None:
    done = _liverank("replay", "file", "--speed", "fast", cwd=tmp_path)
    assert done.returncode == 2
    assert "max" in done.stderr


def test_servers_that_are_away_are_findings_and_exit_with_1(tmp_path: Path) -> None:
    (tmp_path / "liverank.toml").write_text(
        '[kafka]\nbootstrap = "127.0.0.1:1"\n[clickhouse]\nurl = "http://127.0.0.1:1"\n'
    )
    done = _liverank("check", "--json", cwd=tmp_path)
    assert done.returncode == 1
    found = {finding["what"]: finding["ok"] for finding in json.loads(done.stdout)}
    assert found == {"kafka": False, "clickhouse": False, "checkpoints": True}


def test_a_report_without_clickhouse_says_so_and_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "liverank.toml").write_text('[clickhouse]\nurl = "http://127.0.0.1:1"\n')
    done = _liverank("report", cwd=tmp_path)
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_ready_file_gives_the_addresses(tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    file.write_text(json.dumps({"kafka": "127.0.0.1:7", "clickhouse": "http://127.0.0.1:8", "topics": {}}))
    tree = _of_stack(Settings(), file)
    assert (tree.kafka.bootstrap, tree.clickhouse.url) == ("127.0.0.1:7", "http://127.0.0.1:8")


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_what_is_no_ready_file_is_refused(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "ready.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError, match="not a ready file"):
        _of_stack(Settings(), file)
