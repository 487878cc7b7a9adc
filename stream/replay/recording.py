"""Reads a recorded stream: all its records in the order of their time, and the rows that are broken."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import IO, NamedTuple

from stream.errors import Fatal, Poison
from stream.replay.formats import FORMATS, Format, Recorded, Row

ROWS = 40_000
"""What may be under way unlearned: with feature rows of some 200 B, a few MB of each log."""


class Broken(NamedTuple):
    """A row that could not be read: its line in the file (from 1), and why."""

    line: int
    reason: str


class Recording(NamedTuple):
    """A recorded stream in memory.

    Attributes
    ----------
    records
        By time; ties as the format wants them, else as in the file.
    broken
        Rows that are not among them.
    """

    records: list[Recorded]
    broken: list[Broken]

    def window(self) -> int:
        """Events that may be published but not yet learned, for `Flow`.

        An impression counts its items, because each becomes a row of features.
        """
        events = [r.rows for r in self.records if r.topic == "events"]
        return max(1, ROWS * len(events) // max(1, sum(events)))


def read(path: Path, kind: str) -> Recording:
    """Read a file, gzipped when its name ends in ``.gz``.

    Events get an `event_id` made of the file's name and the line, so that replaying a file twice
    within the window of re-deliveries is harmless.

    Parameters
    ----------
    path
        The file.
    kind
        Of `stream.replay.formats.FORMATS`.

    Raises
    ------
    Fatal
        When the format is unknown, the file cannot be read, or its columns are not the format's.
    """
    if kind not in FORMATS:
        raise Fatal(f"unknown format {kind!r}; known are {', '.join(FORMATS)}")
    form = FORMATS[kind]()
    records: list[Recorded] = []
    broken: list[Broken] = []
    try:
        # bytes that are not UTF-8 break their row, not the file
        with _open(path) as binary, TextIOWrapper(binary, "utf-8", "surrogateescape", newline="") as file:
            for line, row in _table(file, form, f"{path}: is it {kind}?") if form.columns else _lines(file):
                try:
                    records += form.read(_complete(row), f"{path.name}:{line}")
                except (Poison, ValueError) as error:
                    broken.append(Broken(line, str(error)))
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise Fatal(f"{path}: cannot be read: {error}") from None
    records.sort(key=lambda r: (r.ts, r.order))
    return Recording(list(_changes(records)), broken)


def _changes(records: Iterable[Recorded]) -> Iterator[Recorded]:
    """Leave out what says of an item what was last said of it."""
    known: dict[bytes, bytes] = {}
    for record in records:
        if record.topic == "items":
            if known.get(record.key) == record.value:
                continue
            known[record.key] = record.value
        yield record


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _lines(file: Iterable[str]) -> Iterator[tuple[int, Row]]:
    for line, text in enumerate(file, 1):
        if text.strip():
            yield line, {"line": text}


def _table(file: Iterable[str], form: Format, question: str) -> Iterator[tuple[int, Row]]:
    table = csv.DictReader(file)
    if missing := [column for column in form.columns if column not in (table.fieldnames or ())]:
        raise Fatal(f"{question} It has no column {', '.join(missing)}.")
    for row in table:
        yield table.line_num, row


def _complete(row: Row) -> Row:
    """Refuse a row of a table that is shorter or longer than its heading."""
    if None in row or None in row.values():
        raise Poison("not as many columns as the heading")
    return row
