"""Cumulative counts per block of input offsets, so that sending them again changes nothing.

What a role counts belongs to the block of input offsets that is open when it is counted (late events
too), hence a closed block never changes, its memory is freed, and a replay counts the same again.

>>> counts = Counts("rank")
>>> counts.advance(0, 41)
>>> dims = {"second": [7, 7, 8], "role": "rank", "counter": "dead", "reason": "too old"}
>>> counts.add(0, "health", dims, {"count": 1})
>>> [outcomes] = counts.take(0)
>>> outcomes.block, outcomes.version
(0, 41)
>>> outcomes.cubes["health"]["second"], outcomes.cubes["health"]["count"]
([7, 8], [2, 1])
>>> counts.take(0)
[]
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from stream.grouping import Array, Column, Key, concat, count_rows, group
from stream.log import Records
from stream.messages import CUBES, REAL, Outcomes

BLOCK = 10_000
"""Input offsets in a block: few enough that a checkpoint, which holds the open block, stays small; many
enough that few rows repeat."""

READINGS = ("gauges",)
"""Cubes whose rows are readings: the newest stands, nothing is added up."""

WAITING = 20_000
"""Rows of a cube that wait to be added up together: one addition of many is far cheaper than many of few."""

MAX_BYTES = 850_000
"""Most that one message takes, by an estimate from above: brokers refuse more than 1 MB by default."""

BINS_PER_OCTAVE = 4
"""Bins of a latency for each doubling."""


def source_name(role: str, log_name: str) -> str:
    """Name the counts that a role makes of one log; offsets of another log are other rows.

    >>> source_name("rank", "cluster-1/liverank.events/4"), source_name("rank", "")
    ('rank-99b70cc5', 'rank')
    """
    return f"{role}-{zlib.crc32(log_name.encode()):08x}" if log_name else role


class _Rows:
    """Rows of one cube: their sums by dimensions, and which have changed since they were taken."""

    def __init__(self, cube: str) -> None:
        self.cube, self.newest_stands = cube, cube in READINGS
        self.number: dict[Key, int] = {}
        self.keys: list[Key] = []
        self.sums = np.zeros((16, len(CUBES[cube].sums)))
        self.changed = np.zeros(16, bool)
        self._parts: list[tuple[list[Column], list[Column]]] = []
        self._sizes: list[int] = []

    def add(self, dims: list[Column], sums: list[Column]) -> None:
        """Take in columns; they are added up when it is worth it, or when somebody wants to know."""
        self._sizes.append(count_rows([*dims, *sums]))
        self._parts.append((dims, sums))
        if self.newest_stands or sum(self._sizes) > WAITING:
            self.settle()

    def settle(self) -> None:
        """Add up all that waits."""
        if not self._parts:
            return
        dims, sums = (
            [concat(columns, self._sizes) for columns in zip(*side, strict=True)]
            for side in zip(*self._parts, strict=True)
        )
        keys, totals = group(dims, sums, sum(self._sizes))
        self._parts, self._sizes = [], []
        if keys:
            self.put(keys, np.stack(totals, axis=1))

    def put(self, keys: list[Key], totals: Array) -> None:
        """Add to the rows of `keys`, all different, the `totals` (float64 [keys, sums])."""
        number = self.number
        at = [number.setdefault(key, len(number)) for key in keys]
        first = len(self.keys)
        self.keys += [key for key, row in zip(keys, at, strict=True) if row >= first]
        while len(self.sums) < len(number):
            self.sums = np.concatenate([self.sums, np.zeros_like(self.sums)])
            self.changed = np.concatenate([self.changed, np.zeros_like(self.changed)])
        self.sums[at] = totals if self.newest_stands else self.sums[at] + totals
        self.changed[at] = True

    def all(self) -> dict[str, list[Any]]:
        """Every row, in plain columns."""
        self.settle()
        return self._columns(np.arange(len(self.number)))

    def take(self) -> dict[str, list[Any]]:
        """The rows that have changed since they were taken last, in plain columns."""
        self.settle()
        at = np.flatnonzero(self.changed)
        self.changed[at] = False
        return self._columns(at)

    def _columns(self, at: Array) -> dict[str, list[Any]]:
        spec, keys = CUBES[self.cube], self.keys
        dims = zip(*(keys[i] for i in at.tolist()), strict=True) if len(at) else ([] for _ in spec.dims)
        columns: dict[str, list[Any]] = {
            name: list(values) for name, values in zip(spec.dims, dims, strict=True)
        }
        for i, (name, kind) in enumerate(spec.sums.items()):
            values = self.sums[at, i]
            columns[name] = values.tolist() if kind == REAL else np.rint(values).astype(np.int64).tolist()
        return columns


@dataclass
class _Block:
    """Rows of one block, by cube."""

    number: int
    version: int
    rows: dict[str, _Rows] = field(default_factory=dict)

    def of(self, cube: str) -> _Rows:
        if cube not in self.rows:
            self.rows[cube] = _Rows(cube)
        return self.rows[cube]


class Counts:
    """The cubes of `messages.CUBES`, counted by (partition, block).

    Parameters
    ----------
    source
        Who counts; names the rows together with partition and block.
    block
        Input offsets in a block.
    """

    def __init__(self, source: str, block: int = BLOCK) -> None:
        self.source, self.block = source, block
        self._open: dict[int, _Block] = {}
        self._closed: dict[int, list[Outcomes]] = {}

    def advance(self, partition: int, offset: int) -> None:
        """State the newest input offset that is counted, before counting what it brings.

        All offsets of one batch must be of one block (`split_blocks`). Entering a new block closes
        the open one: what has changed in it waits for the next `take`, the rest is forgotten.
        """
        number = offset // self.block
        current = self._open.get(partition)
        if current is None or number > current.number:
            if current is not None:
                self._closed.setdefault(partition, []).extend(self._changes(partition, current))
            self._open[partition] = _Block(number, offset)
        else:
            current.version = max(current.version, offset)

    def add(
        self, partition: int, cube: str, dims: Mapping[str, Column], sums: Mapping[str, Column] | None = None
    ) -> None:
        """Count n rows, many of which may share their dimensions.

        Parameters
        ----------
        partition
            Whose open block they belong to (before any `advance`: block 0).
        cube
            A name in `messages.CUBES`.
        dims, sums
            Columns of n values, or one value for all rows. Every dimension is needed; sums left
            out are 0. Integer arrays and `Coded` columns are the fastest. Not to be changed afterwards.

        Raises
        ------
        ValueError
            When a column is missing, unknown, or of another length.
        """
        spec = CUBES[cube]
        sums = sums or {}
        if set(dims) != set(spec.dims) or not set(sums) <= set(spec.sums):
            raise ValueError(
                f"{cube}: columns are {list(spec.dims)} and {list(spec.sums)}, not {[*dims, *sums]}"
            )
        rows = self._open.setdefault(partition, _Block(0, -1)).of(cube)
        rows.add([dims[name] for name in spec.dims], [sums.get(name, 0) for name in spec.sums])

    def take(self, partition: int) -> list[Outcomes]:
        """Rows that have changed since the last take, in the order in which they were first counted."""
        block = self._open.get(partition)
        return self._closed.pop(partition, []) + (self._changes(partition, block) if block else [])

    def partitions(self) -> list[int]:
        """Partitions with an open block, ascending."""
        return sorted(self._open)

    def state(self, partition: int) -> dict[str, Any]:
        """Plain data to keep in a checkpoint: the open block, and closed rows not taken yet."""
        block = self._open.get(partition, _Block(0, -1))
        cubes = {cube: rows.all() for cube, rows in block.rows.items()}
        closed = [[o.block, o.version, o.cubes] for o in self._closed.get(partition, [])]
        return {"block": block.number, "version": block.version, "cubes": cubes, "closed": closed}

    def restore(self, partition: int, state: Mapping[str, Any]) -> None:
        """Go on from `state`. All rows count as changed: those sent since may have been lost."""
        block = _Block(state["block"], state["version"])
        for cube, columns in state["cubes"].items():
            spec = CUBES[cube]
            keys = list(zip(*(columns[name] for name in spec.dims), strict=True))
            if keys:
                totals = np.array([columns[name] for name in spec.sums], np.float64)
                block.of(cube).put(keys, totals.T)
        self._open[partition] = block
        self._closed[partition] = [
            Outcomes(source=self.source, partition=partition, block=number, version=version, cubes=cubes)
            for number, version, cubes in state["closed"]
        ]

    def drop(self, partition: int) -> None:
        """Forget a partition: another process has it now."""
        self._open.pop(partition, None)
        self._closed.pop(partition, None)

    def _changes(self, partition: int, block: _Block) -> list[Outcomes]:
        return [
            Outcomes(
                source=self.source,
                partition=partition,
                block=block.number,
                version=block.version,
                cubes=cubes,
            )
            for cubes in _messages({cube: rows.take() for cube, rows in block.rows.items()})
        ]


def _messages(cubes: Mapping[str, dict[str, list[Any]]]) -> Iterator[dict[str, dict[str, list[Any]]]]:
    """The columns of a few cubes at a time, each time at most `MAX_BYTES`."""
    part: dict[str, dict[str, list[Any]]] = {}
    left = MAX_BYTES
    for cube, columns in cubes.items():
        size = np.cumsum(_sizes(columns))
        first, count = 0, len(size)
        while first < count:
            before = size[first - 1] if first else 0
            last = int(np.searchsorted(size, before + left, side="right"))
            if last == first and not part:
                last = first + 1  # no message is large enough for this row
            if last > first:
                part[cube] = {name: values[first:last] for name, values in columns.items()}
                left -= int(size[last - 1] - before)
            first = last
            if first < count:
                yield part
                part, left = {}, MAX_BYTES
    if part:
        yield part


def _sizes(columns: Mapping[str, list[Any]]) -> Array:
    """Bytes of each row in MessagePack, from above: 9 a number, 5 and 4 a character to a text."""
    size = np.zeros(len(next(iter(columns.values()))), np.int64)
    for values in columns.values():
        text = len(values) > 0 and isinstance(values[0], str)
        size += np.array([5 + 4 * len(v) for v in values], np.int64) if text else 9
    return size


def split_blocks(records: Records, block: int = BLOCK) -> Iterator[Records]:
    """Cut a batch where it crosses the border of a block.

    >>> r = Records("events", 0, [8, 9, 10], [0, 0, 0], [b"", b"", b""], [b"", b"", b""])
    >>> [part.offsets for part in split_blocks(r, 10)]
    [[8, 9], [10]]
    """
    topic, partition, offsets, timestamps, keys, values = records
    first, last = offsets[0] // block, offsets[-1] // block
    if first == last:
        yield records
        return
    borders = [bisect_left(offsets, number * block) for number in range(first, last + 2)]
    for a, b in pairwise(borders):
        if a < b:
            yield Records(topic, partition, offsets[a:b], timestamps[a:b], keys[a:b], values[a:b])


def latency_bin(ms: Array) -> Array:
    """Upper edge (ms) of the bin of each latency, as dimension ``upto``: powers of 2 ** (1/4), at least 1.

    >>> latency_bin(np.array([0.2, 3.0, 4.0])).round(2).tolist()
    [1.0, 3.36, 4.0]
    """
    edge: Array = 2.0 ** (np.ceil(BINS_PER_OCTAVE * np.log2(np.maximum(ms, 1.0))) / BINS_PER_OCTAVE)
    return edge
