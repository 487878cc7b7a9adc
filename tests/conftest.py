"""Servers that tests share; `TEST_CLICKHOUSE_URL` names a ClickHouse to use instead of ours."""

import json
import os
import subprocess
import sys
import urllib.request
import uuid

import pytest

from stream.clickhouse import Store
from stream.messages import CUBES
from stream.settings import ClickHouse

T0 = 1_700_000_040
"""A full minute, s since the epoch; times in tables of rows count from here."""


@pytest.fixture(scope="session")
def clickhouse_url(tmp_path_factory):
    if given := os.environ.get("TEST_CLICKHOUSE_URL"):
        yield given
        return
    path = tmp_path_factory.mktemp("clickhouse")
    command = [sys.executable, "-m", "stream.embedded.clickhouse", "--path", str(path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        assert line, "the embedded ClickHouse did not start"
        yield json.loads(line)["url"]
        process.terminate()


@pytest.fixture
def store(clickhouse_url):
    """A migrated database of the test's own."""
    database = f"test_{uuid.uuid4().hex}"
    store = Store(ClickHouse(url=clickhouse_url, database=database))
    store.migrate()
    yield store
    urllib.request.urlopen(clickhouse_url, data=f"DROP DATABASE {database}".encode()).read()


@pytest.fixture
def put(store):
    """Insert rows given as text: a header of column names, then one line per row."""

    def insert(cube, text, source="rank", partition=0, block=0, version=1):
        names, *lines = [line.split() for line in text.strip().splitlines()]
        spec = CUBES[cube]
        kinds = {**spec.dims, **spec.sums}
        cells = {name: [line[i] for line in lines] for i, name in enumerate(names)}
        empty = {"String": "", "DateTime": T0}
        rows = {
            name: [_value(kind, cell) for cell in cells[name]]
            if name in cells
            else [empty.get(kind, 0)] * len(lines)
            for name, kind in kinds.items()
        }
        named = {"source": source, "partition": partition, "block": block, "version": version}
        store.insert(cube, rows | {name: [value] * len(lines) for name, value in named.items()})

    return insert


def _value(kind, cell):
    if kind == "DateTime":
        return T0 + int(cell)
    return cell if kind == "String" else float(cell) if kind == "Float64" else int(cell)
