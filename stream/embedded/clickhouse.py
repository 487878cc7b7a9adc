"""ClickHouse in this process: chdb, the real engine, behind ClickHouse's HTTP interface.

``python -m stream.embedded.clickhouse --path DIR [--port N]`` prints one line of JSON when it is
ready, with the address, and serves until it is ended. Data stays in DIR; one process per DIR.
It answers clickhouse-connect, curl and anything else that speaks HTTP to ClickHouse, on the
loopback interface only and without passwords.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import signal
import sys
import threading
import zlib
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import chdb
import lz4.frame

from stream.errors import Fatal

UNKNOWN_EXCEPTION = 1002
"""ClickHouse's code for an error that has none."""

_TRANSPORT = re.compile(
    "add_http_cors_header|buffer_size|client_protocol_version|compress|database|decompress|default_format|"
    "enable_http_compression|http_headers_progress_interval_ms|param_.*|password|query|query_id|quota_key|"
    "role|send_progress_in_http_headers|session_check|session_id|session_timeout|user|wait_end_of_query"
)
"""Arguments of a URL that are not settings of the query."""

_INSERT = re.compile(rb"\s*INSERT\s+INTO\s+(.*?)\s+FORMAT\s+(\w+)[ \t]*;?[ \t]*(?:\r?\n|$)", re.I | re.S)
_FORMAT = re.compile(r"\sFORMAT\s+(\w+)\s*;?\s*$", re.I)


class Query(NamedTuple):
    """One request, in ClickHouse's terms; data to insert follow the statement in `sql`."""

    sql: bytes
    database: str
    settings: dict[str, str]
    parameters: dict[str, str]
    default_format: str


class Answer(NamedTuple):
    """What a query gave: a result in `format`, or rows written."""

    body: bytes
    format: str
    written: int = 0
    read: int = 0


def parse(arguments: dict[str, str], headers: dict[str, str], body: bytes) -> Query:
    """Put a request's URL arguments, headers (lower case) and body together.

    Examples
    --------
    >>> parse({"query": "SELECT {x:Int8}", "param_x": "1", "max_threads": "2"}, {}, b"")
    Query(sql=b'SELECT {x:Int8}', database='default', settings={'max_threads': '2'}, parameters={'x': '1'}, \
default_format='TabSeparated')
    """
    parts = [part for part in (arguments.get("query", "").encode(), body) if part]
    return Query(
        b"\n".join(parts),
        arguments.get("database") or headers.get("x-clickhouse-database") or "default",
        {k: v for k, v in arguments.items() if not _TRANSPORT.fullmatch(k)},
        {k[6:]: v for k, v in arguments.items() if k.startswith("param_")},
        headers.get("x-clickhouse-format") or arguments.get("default_format") or "TabSeparated",
    )


def quoted(text: str) -> str:
    r"""SQL literal of a text.

    >>> print(quoted("it's"))
    'it\'s'
    """
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Engine:
    """chdb on one directory; each thread has a handle of its own.

    Parameters
    ----------
    path
        Directory of the data.

    Raises
    ------
    Fatal
        When the directory cannot be used, for example because another process uses it.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._local = threading.local()
        try:
            path.mkdir(parents=True, exist_ok=True)
            # the engine ends with its last handle: this one keeps it
            self._keep = _connect(self._path)
        except (OSError, RuntimeError, chdb.ChdbError) as error:
            raise Fatal(f"ClickHouse cannot use {path}: {_message(error)}; is it in use already?") from error

    def run(self, query: Query) -> Answer:
        """Run one query; raises chdb's own errors, whose text is ClickHouse's."""
        if not query.settings and query.database == "default":
            return self._run(self._own(), query)
        # a handle is a session, which remembers settings: this one is thrown away
        with closing(_connect(self._path)) as handle:
            if query.database != "default":
                handle.query(f"USE `{query.database}`")
            for name, value in query.settings.items():
                handle.query(f"SET {name} = {quoted(value)}")
            return self._run(handle, query)

    def release(self) -> None:
        """Close the calling thread's handle."""
        if (handle := getattr(self._local, "handle", None)) is not None:
            handle.close()
            del self._local.handle

    def close(self) -> None:
        """End the engine, once every thread has released its handle."""
        self._keep.close()

    def _own(self) -> Any:
        if not hasattr(self._local, "handle"):
            self._local.handle = _connect(self._path)
        return self._local.handle

    def _run(self, handle: Any, query: Query) -> Answer:
        insert = _INSERT.match(query.sql)
        if insert and insert.end() < len(query.sql):
            return self._insert(handle, insert, query.sql[insert.end() :])
        sql = query.sql.decode()
        named = _FORMAT.search(sql)
        shape = named[1] if named else query.default_format
        result = handle.query(sql[: named.start()] if named else sql, shape, params=query.parameters)
        return Answer(result.bytes(), shape, read=result.rows_read())

    def _insert(self, handle: Any, insert: re.Match[bytes], data: bytes) -> Answer:
        target, shape = insert[1].decode(), insert[2].decode()
        with handle.send_insert(f"INSERT INTO {target}", shape) as stream:
            stream.append(data)
            return Answer(b"", shape, written=stream.finish().rows_written)


def _connect(path: str) -> Any:
    return chdb.connect(path)  # type: ignore[no-untyped-call]


def _message(error: Exception) -> str:
    text = str(error)
    return text[max(text.find("Code: "), 0) :]


def _lz4(data: bytes) -> bytes:
    """Decompress frames one after another, as clients send them."""
    parts = []
    while data:
        frame = lz4.frame.LZ4FrameDecompressor()
        parts.append(frame.decompress(data))
        data = frame.unused_data or b""
    return b"".join(parts)


DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "identity": bytes,
    "lz4": _lz4,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}


class Server(ThreadingHTTPServer):
    """The HTTP front; port 0 takes a free one."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, engine: Engine, port: int) -> None:
        self.engine = engine
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise Fatal(f"ClickHouse's HTTP interface cannot use port {port}: {error.strerror}") from error

    @property
    def url(self) -> str:
        """Address for clients."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    """One connection, on one thread."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def do_GET(self) -> None:
        """Answer one request."""
        url = urlsplit(self.path)
        arguments = dict(parse_qsl(url.query, keep_blank_values=True))
        try:
            body = self._body()
        except (ValueError, OSError, EOFError, RuntimeError, zlib.error) as error:
            self.close_connection = True
            self._reply(400, f"The request cannot be read: {error}\n".encode())
            return
        if url.path == "/ping" or (url.path == "/" and not arguments and not body):
            self._reply(200, b"Ok.\n")
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            answer = self.server.engine.run(parse(arguments, headers, body))
        except Exception as error:  # the client's query is at fault, and this is how it is told
            self._refuse(error)
        else:
            self._give(answer)

    do_POST = do_GET  # noqa: N815 - the name is the base class's

    def finish(self) -> None:
        """Clean up after the connection."""
        super().finish()
        self.server.engine.release()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: ClickHouse's clients report for themselves."""

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            data = self._chunks()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        encoding = self.headers.get("Content-Encoding", "")
        if encoding not in DECODERS:
            raise ValueError(f"Content-Encoding {encoding} is none of {', '.join(filter(None, DECODERS))}")
        return DECODERS[encoding](data)

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(parts)

    def _give(self, answer: Answer) -> None:
        summary = {"read_rows": answer.read, "written_rows": answer.written, "result_rows": answer.read}
        self._reply(
            200,
            answer.body,
            ("X-ClickHouse-Format", answer.format),
            ("X-ClickHouse-Timezone", "UTC"),
            ("X-ClickHouse-Summary", json.dumps({name: str(value) for name, value in summary.items()})),
        )

    def _refuse(self, error: Exception) -> None:
        message = _message(error)
        code = re.match(r"Code: (\d+)", message)
        self._reply(
            500,
            message.encode(),
            ("X-ClickHouse-Exception-Code", code[1] if code else str(UNKNOWN_EXCEPTION)),
        )

    def _reply(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m stream.embedded.clickhouse", description=__doc__)
    parser.add_argument("--path", type=Path, required=True, help="directory of the data")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options = parser.parse_args()
    try:
        engine = Engine(options.path)
        server = Server(engine, options.port)
    except Fatal as error:
        sys.exit(str(error))
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: threading.Thread(target=server.shutdown).start())
    print(json.dumps({"ready": True, "url": server.url}), flush=True)
    server.serve_forever()
    engine.close()
    # threads of open connections may be inside the engine: leave without waiting for them
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
