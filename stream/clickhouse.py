"""Metrics in ClickHouse: one table per cube, views for users. The only file that imports clickhouse_connect.

A row is named by (source, partition, block, its dimensions) and replaced by a higher version, so that
inserting it again changes nothing (`ReplacingMergeTree`); the views in `schema.sql` fold and add up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver import exceptions
from clickhouse_connect.driver.client import Client

from stream.errors import Fatal, Poison, Retryable, SettingsError
from stream.messages import CUBES, Alert, Cube
from stream.settings import ClickHouse

NAMED_BY = {"source": "LowCardinality(String)", "partition": "Int32", "block": "Int64"}
VERSION = {"version": "Int64"}
ALERT = {
    "time": "DateTime64(3, 'UTC')",
    "rule": "String",
    "severity": "String",
    "message": "String",
    "values": "Map(String, Float64)",
}

CONNECT_S, ANSWER_S = 3, 30

# names in ClickHouse's src/Common/ErrorCodes.cpp
RETRYABLE = {
    "ABORTED",
    "ALL_CONNECTION_TRIES_FAILED",
    "CANNOT_SCHEDULE_TASK",
    "KEEPER_EXCEPTION",
    "MEMORY_LIMIT_EXCEEDED",
    "NETWORK_ERROR",
    "NO_FREE_CONNECTION",
    "NOT_ENOUGH_SPACE",
    "QUERY_WAS_CANCELLED",
    "QUOTA_EXCEEDED",
    "SOCKET_TIMEOUT",
    "TABLE_IS_READ_ONLY",
    "TIMEOUT_EXCEEDED",
    "TOO_FEW_LIVE_REPLICAS",
    "TOO_MANY_PARTS",
    "TOO_MANY_SIMULTANEOUS_QUERIES",
    "UNKNOWN_STATUS_OF_INSERT",
}
POISON = {
    "ARGUMENT_OUT_OF_BOUND",
    "CANNOT_CONVERT_TYPE",
    "CANNOT_PARSE_TEXT",
    "CANNOT_READ_ALL_DATA",
    "INCORRECT_DATA",
    "TOO_LARGE_STRING_SIZE",
    "TYPE_MISMATCH",
    "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE",
}
TABLES = """
    SELECT
        t.name AS name, any(sorting_key) AS sorting_key, any(engine_full) AS engine_full,
        groupArray(c.name) AS columns
    FROM system.tables AS t
    INNER JOIN system.columns AS c ON c.database = t.database AND c.table = t.name
    WHERE t.database = '{db}' GROUP BY name
"""

OVERLOADED = tuple(f"HTTP status {status}" for status in (429, 500, 502, 503, 504))
"""How a proxy in front of ClickHouse says that it is away; such answers carry no error code."""


def columns(cube: Cube) -> dict[str, str]:
    """Every column of a cube's table and its ClickHouse type, in the table's order.

    >>> list(columns(CUBES["freshness"]))
    ['source', 'partition', 'block', 'version', 'second', 'kind', 'upto', 'count']
    """
    utc = {name: kind.replace("DateTime", "DateTime('UTC')") for name, kind in cube.dims.items()}
    return {**NAMED_BY, **VERSION, **utc, **cube.sums}


def create_table(database: str, name: str, cube: Cube, ttl_days: int) -> str:
    """SQL of a cube's table.

    Rows expire by when they were stored, not by their event time: a recorded stream may be years old.
    """
    lines = [f"`{column}` {kind}" for column, kind in columns(cube).items()]
    key = ", ".join(f"`{column}`" for column in (*NAMED_BY, *cube.dims))
    return (
        f"CREATE TABLE IF NOT EXISTS {database}.{name}_cube ({', '.join(lines)}, "
        "`stored` DateTime('UTC') DEFAULT now(), INDEX by_second second TYPE minmax) "
        f"ENGINE = ReplacingMergeTree(version) ORDER BY ({key}) TTL stored + toIntervalDay({ttl_days})"
    )


def create_alert_log(database: str, ttl_days: int) -> str:
    """SQL of the table of alerts."""
    lines = ", ".join(f"`{column}` {kind}" for column, kind in ALERT.items())
    return (
        f"CREATE TABLE IF NOT EXISTS {database}.alert_log ({lines}, `stored` DateTime('UTC') DEFAULT now()) "
        f"ENGINE = ReplacingMergeTree ORDER BY (time, rule) TTL stored + toIntervalDay({ttl_days})"
    )


def views(database: str) -> list[str]:
    """Statements of `schema.sql`; it is split where a line ends in a semicolon."""
    text = Path(__file__).with_name("schema.sql").read_text().replace("{db}", database)
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return [statement.strip() for statement in f"{code}\n".split(";\n") if statement.strip()]


class Store:
    """A ClickHouse database of ours. May be used from several threads.

    Connects at the first call. Every method raises `Retryable` when the server is away or overloaded,
    `Fatal` when it refuses us, and `insert` raises `Poison` when a value does not fit its column.
    """

    def __init__(self, settings: ClickHouse) -> None:
        url = urlsplit(settings.url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise SettingsError(f"[clickhouse] url = {settings.url!r}: http://host:port or https://host:port")
        if not settings.database.isidentifier():
            raise SettingsError(
                f"[clickhouse] database = {settings.database!r}: letters, digits and underscores"
            )
        self.settings = settings
        # what they log is raised as well
        for name in ("clickhouse_connect", "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._address: dict[str, Any] = {
            "host": url.hostname,
            "port": url.port or {"http": 8123, "https": 8443}[url.scheme],
            "secure": url.scheme == "https",
        }

    @cached_property
    def _client(self) -> Client:
        """No default database, because `migrate` makes it; no session, because a session is one thread's."""
        with _translated(self.settings.url):
            return clickhouse_connect.get_client(
                **self._address,
                username=self.settings.user,
                password=str(self.settings.password),
                autogenerate_session_id=False,
                connect_timeout=CONNECT_S,
                send_receive_timeout=ANSWER_S,
                show_clickhouse_errors="scrub",
                tz_mode="aware",
            )

    def migrate(self) -> None:
        """Create or update database, tables and views; doing it again changes nothing.

        Raises
        ------
        Fatal
            When a table was made for other dimensions: ClickHouse cannot change a sorting key.
        """
        database, days = self.settings.database, self.settings.ttl_days
        self._command(f"CREATE DATABASE IF NOT EXISTS {database}")
        tables = {row["name"]: row for row in self.query(TABLES)}
        wanted = {f"{name}_cube": create_table(database, name, cube, days) for name, cube in CUBES.items()}
        wanted["alert_log"] = create_alert_log(database, days)
        for name, sql in wanted.items():
            if name not in tables:
                self._command(sql)
            elif f"toIntervalDay({days})" not in tables[name]["engine_full"]:
                self._command(f"ALTER TABLE {database}.{name} MODIFY TTL stored + toIntervalDay({days})")
        for name, cube in CUBES.items():
            if f"{name}_cube" in tables:
                self._update(tables[f"{name}_cube"], cube)
        for statement in views(database):
            self._command(statement)

    def _update(self, table: Mapping[str, Any], cube: Cube) -> None:
        """Add sums that the table lacks."""
        name = f"{self.settings.database}.{table['name']}"
        key = ", ".join((*NAMED_BY, *cube.dims))
        if table["sorting_key"].replace("`", "") != key:
            raise Fatal(
                f"ClickHouse table {name} was made by another version of liverank (counted by "
                f"{table['sorting_key']}, not {key}): rename or drop it, or set another database"
            )
        for column, kind in cube.sums.items():
            if column not in table["columns"]:
                self._command(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS `{column}` {kind}")

    def insert(self, cube: str, rows: Mapping[str, Sequence[Any]]) -> None:
        """Store rows of one cube; when it returns they are stored.

        Parameters
        ----------
        cube
            A name in `messages.CUBES`.
        rows
            A list per column of `columns`, all of one length; ``second`` in seconds since the epoch.
        """
        kinds = columns(CUBES[cube])
        self._insert(f"{cube}_cube", kinds, [rows[name] for name in kinds])

    def alert(self, alerts: Sequence[Alert]) -> None:
        """Store alerts; the same rule at the same millisecond is one alert."""
        rows = [[a.ts, a.rule, a.severity, a.message, a.values] for a in alerts]
        if rows:
            self._insert("alert_log", ALERT, [list(column) for column in zip(*rows, strict=True)])

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a SELECT; ``{db}`` in it stands for the database."""
        with _translated(self.settings.url):
            result = self._client.query(sql.replace("{db}", self.settings.database))
            return list(result.named_results())

    def _command(self, sql: str) -> None:
        with _translated(self.settings.url):
            self._client.command(sql)

    def _insert(self, table: str, kinds: Mapping[str, str], data: list[Sequence[Any]]) -> None:
        with _translated(self.settings.url):
            self._client.insert(
                table,
                data,
                column_names=list(kinds),
                database=self.settings.database,
                column_type_names=list(kinds.values()),
                column_oriented=True,
            )


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Raise our errors for the client's."""
    try:
        yield
    except exceptions.ClickHouseError as error:
        message = f"ClickHouse at {url}: {_reason(error)}"
        name = getattr(error, "name", None)
        if isinstance(error, exceptions.DataError) or name in POISON:
            raise Poison(message) from error
        away = getattr(error, "code", None) is None and (
            isinstance(error, exceptions.OperationalError) or any(s in str(error) for s in OVERLOADED)
        )
        raise (Retryable if away or name in RETRYABLE else Fatal)(message) from error


def _reason(error: BaseException) -> str:
    """What the server said, or what happened on the wire beneath the client's layers."""
    if isinstance(error, exceptions.OperationalError):
        while error.__cause__ is not None:
            error = error.__cause__
    return str(error)
