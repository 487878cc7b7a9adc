"""How the embedded ClickHouse reads requests; what it answers: tests/integration."""

from __future__ import annotations

import gzip
import zlib

import lz4.frame
import pytest

from stream.embedded.clickhouse import DECODERS, parse, quoted


def test_a_statement_in_the_url_comes_before_data_in_the_body() -> None:
    assert parse({"query": "INSERT INTO t FORMAT CSV"}, {}, b"1\n").sql == b"INSERT INTO t FORMAT CSV\n1\n"
    assert parse({}, {}, b"SELECT 1").sql == b"SELECT 1"


def test_the_database_comes_from_url_or_header() -> None:
    assert parse({"database": "a"}, {"x-clickhouse-database": "b"}, b"").database == "a"
    assert parse({}, {"x-clickhouse-database": "b"}, b"").database == "b"


def test_what_is_neither_transport_nor_parameter_is_a_setting() -> None:
    query = parse({"session_id": "s", "param_x": "1", "max_threads": "2", "user": "u"}, {}, b"")
    assert (query.settings, query.parameters) == ({"max_threads": "2"}, {"x": "1"})


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("", bytes),
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("lz4", lambda data: lz4.frame.compress(data[:3]) + lz4.frame.compress(data[3:])),
    ],
)
def test_bodies_are_decoded(encoding: str, encode) -> None:
    assert DECODERS[encoding](encode(b"SELECT 1")) == b"SELECT 1"


def test_quotes_cannot_be_left() -> None:
    assert quoted("\\' OR 1") == r"'\\\' OR 1'"
