"""The embedded ClickHouse as its clients see it."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import clickhouse_connect
import pytest


def start(path: Path, port: int = 0) -> tuple[subprocess.Popen[str], str]:
    argv = [sys.executable, "-m", "stream.embedded.clickhouse", "--path", str(path), "--port", str(port)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    return process, json.loads(line)["url"] if line else ""


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and last words."""
    _, errors = process.communicate(timeout=10)
    return process.returncode, errors


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, url = start(tmp_path_factory.mktemp("front"))
    yield url
    process.terminate()
    assert finish(process)[0] == 0


def ask(
    url: str, sql: str = "", body: bytes = b"", headers: dict[str, str] | None = None, **arguments: str
) -> str:
    full = f"{url}/?{urlencode({'query': sql, **arguments})}"
    request = urllib.request.Request(full, data=body or None, headers=headers or {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def test_it_answers_pings(url: str) -> None:
    for path in ("/ping", "/"):
        with urllib.request.urlopen(url + path, timeout=5) as answer:
            assert answer.read() == b"Ok.\n"


def test_the_format_is_the_statements_else_the_clients_else_tabs(url: str) -> None:
    assert ask(url, "SELECT 1 AS a, 'x' AS b FORMAT JSONEachRow") == '{"a":1,"b":"x"}\n'
    assert ask(url, "SELECT 1 AS a", default_format="CSVWithNames") == '"a"\n1\n'
    assert ask(url, "SELECT 1, 2") == "1\t2\n"


def test_settings_hold_for_their_query_only(url: str) -> None:
    sql = "SELECT value FROM system.settings WHERE name = 'max_threads'"
    assert ask(url, sql, max_threads="3") == "3\n"
    assert ask(url, sql) != "3\n"


def test_parameters_are_bound(url: str) -> None:
    assert ask(url, "SELECT {x:String}", param_x="it's") == "it\\'s\n"


def test_an_error_has_clickhouses_code_and_text(url: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(url, "SELECT nope")
    assert caught.value.code == 500
    assert caught.value.headers["X-ClickHouse-Exception-Code"] == "47"
    assert caught.value.read().startswith(b"Code: 47. DB::Exception: ")


def test_a_body_that_cannot_be_read_is_the_clients_fault(url: str) -> None:
    for encoding, body in (("br", b"x"), ("gzip", b"not gzip"), ("lz4", b"not lz4")):
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(url, "SELECT 1", body, {"Content-Encoding": encoding})
        assert caught.value.code == 400


def test_chunked_and_compressed_data_are_inserted(url: str) -> None:
    ask(url, "CREATE TABLE chunks (a Int64) ENGINE = Memory", b" ")
    data = gzip.compress(b"1\n2\n3\n")
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    connection.request(
        "POST",
        "/?" + urlencode({"query": "INSERT INTO chunks FORMAT CSV"}),
        body=iter([data[:5], data[5:]]),
        headers={"Content-Encoding": "gzip"},
        encode_chunked=True,
    )
    answer = connection.getresponse()
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"] == "3"
    answer.read()
    connection.close()
    assert ask(url, "SELECT sum(a) FROM chunks") == "6\n"


def test_clickhouse_connect_inserts_and_reads(url: str) -> None:
    client = clickhouse_connect.get_client(dsn=url)
    client.command("CREATE DATABASE d")
    client.command("CREATE TABLE d.t (a Int64, b String) ENGINE = MergeTree ORDER BY a")
    client.insert("t", [[i, str(i)] for i in range(1000)], column_names=["a", "b"], database="d")
    found = client.query("SELECT count(), max(a) FROM d.t WHERE a < {x:Int64}", parameters={"x": 500})
    assert found.result_rows == [(500, 499)]
    client.close()


def test_clients_do_not_disturb_each_other(url: str) -> None:
    def sum_to(n: int) -> str:
        return ask(url, f"SELECT sum(number) FROM numbers({n})", max_threads="1" if n % 2 else "2")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(sum_to, range(1, 60))) == [f"{n * (n - 1) // 2}\n" for n in range(1, 60)]


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    process, url = start(tmp_path / "data")
    ask(url, "CREATE TABLE kept (a Int64) ENGINE = MergeTree ORDER BY a", b" ")
    ask(url, "INSERT INTO kept FORMAT CSV", b"7\n")
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    port = int(url.rpartition(":")[2])
    process, again = start(tmp_path / "data", port)
    assert again == url
    assert ask(url, "SELECT a FROM kept") == "7\n"
    process.terminate()
    assert finish(process) == (0, "")


def test_a_second_process_on_the_same_data_or_port_says_so(tmp_path: Path, url: str) -> None:
    first, _ = start(tmp_path / "data")
    code, errors = finish(start(tmp_path / "data")[0])
    assert code == 1
    assert "is it in use already?" in errors
    first.terminate()
    finish(first)
    code, errors = finish(start(tmp_path / "other", int(url.rpartition(":")[2]))[0])
    assert code == 1
    assert "Address already in use" in errors
