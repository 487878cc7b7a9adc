"""The command: what it prints, and what it says when it cannot."""

import gzip
import json
import logging

import pytest
from typer.testing import CliRunner

from stream.cli import app
from stream.errors import SettingsError
from stream.evaluate.command import intervals
from tests.stream.evaluate.streams import lists

SETTINGS = """
[features]
users = 8192
[train]
rows = 2048
width = 8
hidden = 16
[checkpoints]
path = "{path}"
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    path = tmp_path_factory.mktemp("command")
    settings, events = path / "liverank.toml", path / "events.jsonl.gz"
    settings.write_text(SETTINGS.format(path=path / "checkpoints"))
    events.write_bytes(gzip.compress(b"\n".join(record.value for record in lists(60))))
    return [str(events), "--settings", str(settings), "--turn", "16"]


def test_json_tells_what_was_evaluated_and_all_figures(files):
    result = CliRunner().invoke(app, ["evaluate", *files, "--json", "--sync", "10s,never", "--seed", "3"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["file"], told["format"], told["seed"], told["turn"]) == ("events.jsonl.gz", "events", 3, 16)
    assert told["ranking"]["liverank"]["all"]["lists"] == 60
    assert list(told["sync"]) == ["10s", "never"]
    assert "120 events in" in result.stderr
    assert logging.getLogger("stream.train").level == logging.NOTSET


def test_tables_name_who_predicted(files):
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["evaluate", *files, "--no-river"])
    assert result.exit_code == 0, result.output
    assert "displayed order" in result.stdout
    assert "Chance of a click" in result.stdout
    assert "river" not in result.stdout


def test_the_limit_counts_records(files):
    result = CliRunner().invoke(app, ["evaluate", *files, "--json", "--limit", "40"])
    assert json.loads(result.stdout)["ranking"]["liverank"]["all"]["lists"] == 20


@pytest.mark.parametrize("text", ["10", "m", "0m", "5x", "1m,sometimes"])
def test_intervals_that_are_none_are_refused(text):
    with pytest.raises(SettingsError, match="--sync"):
        intervals(text)
