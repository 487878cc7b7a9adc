import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stream import clickhouse
from stream.clickhouse import Store, views
from stream.errors import Fatal, Poison, Retryable, SettingsError
from stream.messages import CUBES, Cube
from stream.settings import ClickHouse


class Answers(BaseHTTPRequestHandler):
    """A server that gives every query the same answer."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, code, body = self.server.answer
        self.send_response(status)
        if code is not None:
            self.send_header("X-ClickHouse-Exception-Code", str(code))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *args):
        pass


@pytest.fixture
def answering():
    """Start a server with one answer; returns a Store of it."""
    servers = []

    def start(status, code=None, body=b""):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        server.answer = (status, code, body)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return Store(ClickHouse(url=f"http://127.0.0.1:{server.server_port}"))

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def rows(cube, **columns):
    named = {"source": ["rank"], "partition": [0], "block": [0], "version": [1]}
    return named | {name: [value] for name, value in columns.items()}


def test_nobody_listening_is_retryable():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        store = Store(ClickHouse(url=f"http://127.0.0.1:{free.getsockname()[1]}"))
        with pytest.raises(Retryable, match=r"ClickHouse at http://127\.0\.0\.1:\d+: .*Connection refused"):
            store.query("SELECT 1")


def test_server_found_after_it_was_away(clickhouse_url, monkeypatch):
    store = Store(ClickHouse(url=clickhouse_url))
    monkeypatch.setitem(store._address, "port", 1)
    with pytest.raises(Retryable):
        store.query("SELECT 1")
    monkeypatch.undo()
    assert store.query("SELECT 1 AS x") == [{"x": 1}]


@pytest.mark.parametrize(
    ("code", "name"), [(241, "MEMORY_LIMIT_EXCEEDED"), (252, "TOO_MANY_PARTS"), (159, "TIMEOUT_EXCEEDED")]
)
def test_overload_is_retryable(answering, code, name):
    with pytest.raises(Retryable):
        answering(500, code, f"Code: {code}. DB::Exception: too much. ({name})".encode()).query("SELECT 1")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_proxy_in_trouble_is_retryable(answering, status):
    with pytest.raises(Retryable):
        answering(status, body=b"<html>come back later</html>").query("SELECT 1")


def test_wrong_password_is_fatal(answering):
    body = b"Code: 516. DB::Exception: default: Authentication failed. (AUTHENTICATION_FAILED)"
    with pytest.raises(Fatal, match="Authentication failed"):
        answering(403, 516, body).query("SELECT 1")


def test_unknown_database_is_fatal(clickhouse_url):
    store = Store(ClickHouse(url=clickhouse_url, database="nowhere"))
    with pytest.raises(Fatal, match="nowhere"):
        store.query("SELECT * FROM {db}.ctr")
    with pytest.raises(Fatal):
        store.insert("truth", rows("truth", second=0, arm="a", impressions=1, expected=1.0, best=1.0))


def test_value_that_does_not_fit_is_poison(store):
    with pytest.raises(Poison):
        store.insert("truth", rows("truth", second=0, arm="a", impressions=-1, expected=1.0, best=1.0))


@pytest.mark.parametrize("url", ["127.0.0.1:8123", "tcp://host:9000", "http://"])
def test_url_that_is_none_is_refused(url):
    with pytest.raises(SettingsError, match="url"):
        Store(ClickHouse(url=url))


def test_database_name_cannot_carry_sql():
    with pytest.raises(SettingsError, match="letters"):
        Store(ClickHouse(database="x; DROP DATABASE y"))


def test_migrating_again_keeps_rows(store):
    store.insert("truth", rows("truth", second=0, arm="a", impressions=1, expected=1.0, best=2.0))
    store.migrate()
    assert store.query("SELECT regret FROM {db}.truth") == [{"regret": 0.5}]


def test_new_sum_is_added_to_an_old_table(store, monkeypatch):
    store.insert("truth", rows("truth", second=0, arm="a", impressions=1, expected=1.0, best=2.0))
    cube = CUBES["truth"]
    monkeypatch.setitem(CUBES, "truth", Cube(cube.dims, {**cube.sums, "worst": "Float64"}))
    store.migrate()
    assert store.query("SELECT worst FROM {db}.truth_cube") == [{"worst": 0.0}]


def test_table_with_other_dimensions_is_fatal(store, monkeypatch):
    cube = CUBES["truth"]
    monkeypatch.setitem(CUBES, "truth", Cube({**cube.dims, "surface": "String"}, cube.sums))
    with pytest.raises(Fatal, match="truth_cube was made by another version"):
        store.migrate()


def test_retention_follows_the_settings(store):
    longer = Store(ClickHouse(url=store.settings.url, database=store.settings.database, ttl_days=400))
    longer.migrate()
    tables = longer.query(
        "SELECT engine_full FROM system.tables WHERE database = '{db}' AND engine LIKE 'Repl%'"
    )
    assert len(tables) == len(CUBES) + 1
    assert all("TTL stored + toIntervalDay(400)" in table["engine_full"] for table in tables)


def test_rows_of_long_ago_are_kept(store):
    store.insert("truth", rows("truth", second=1, arm="a", impressions=1, expected=1.0, best=2.0))
    store._command(f"OPTIMIZE TABLE {store.settings.database}.truth_cube FINAL")
    assert len(store.query("SELECT * FROM {db}.truth")) == 1


def test_password_is_not_in_errors():
    with pytest.raises(Retryable) as raised:
        Store(ClickHouse(url="http://127.0.0.1:1", password="hunter2")).query("SELECT 1")
    assert "hunter2" not in str(raised.value)


def test_every_view_statement_names_the_database():
    statements = views("d")
    assert len(statements) > 10
    assert all(s.startswith("CREATE OR REPLACE VIEW d.") and ";" not in s for s in statements)


def test_client_is_confined(monkeypatch):
    """No exception of the client library passes: its whole tree is caught."""
    from clickhouse_connect.driver import exceptions

    errors = [e for e in vars(exceptions).values() if isinstance(e, type) and issubclass(e, Exception)]
    for error in set(errors) - {exceptions.StreamCompleteException, exceptions.StreamClosedError}:
        with pytest.raises((Fatal, Retryable, Poison)), clickhouse._translated("http://x"):
            raise error("told")
