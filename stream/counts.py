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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from stream.log import Records
from stream.messages import CUBES, REAL, Outcomes

BLOCK = 100_000
"""Input offsets in a block: few enough that its rows fit in memory, many enough that few rows repeat."""

READINGS = ("gauges",)
"""Cubes whose rows are readings: the newest stands, nothing is added up."""

MAX_BYTES = 850_000
"""Most that one message takes, by an estimate from above: brokers refuse more than 1 MB by default."""

DENSE = 65_536
"""Groups found by counting, without sorting, as long as there are not many more than this."""

BINS_PER_OCTAVE = 4
"""Bins of a latency for each doubling."""

Array = NDArray[Any]
Scalar = str | int | float | np.generic


@dataclass(frozen=True)
class Coded:
    """A column of n values that are few: which of `values` each is (`codes`, int [n])."""

    codes: Array
    values: Sequence[Any]

    def __len__(self) -> int:
        return len(self.codes)


Column = Sequence[Any] | Array | Scalar | Coded
Key = tuple[Any, ...]
Row = list[float]


def source_name(role: str, log_name: str) -> str:
    """Name the counts that a role makes of one log; offsets of another log are other rows.

    >>> source_name("rank", "cluster-1/liverank.events/4"), source_name("rank", "")
    ('rank-99b70cc5', 'rank')
    """
    return f"{role}-{zlib.crc32(log_name.encode()):08x}" if log_name else role


@dataclass
class _Block:
    """Rows of one block by their dimensions, and which of them have changed since they were taken."""

    number: int
    version: int
    rows: dict[str, dict[Key, Row]] = field(default_factory=dict)
    changed: dict[str, dict[Key, None]] = field(default_factory=dict)


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
            out are 0. Integer arrays and `Coded` columns are the fastest.

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
        keys, totals = group([dims[name] for name in spec.dims], [sums.get(name, 0) for name in spec.sums])
        block = self._open.setdefault(partition, _Block(0, -1))
        rows, changed = block.rows.setdefault(cube, {}), block.changed.setdefault(cube, {})
        for key, values in zip(keys, zip(*totals, strict=True), strict=True):
            row = rows.get(key)
            if row is None or cube in READINGS:
                rows[key] = list(values)
            else:
                for i, value in enumerate(values):
                    row[i] += value
            changed[key] = None

    def take(self, partition: int) -> list[Outcomes]:
        """Rows that have changed since the last take, in the order in which they first changed."""
        block = self._open.get(partition)
        return self._closed.pop(partition, []) + (self._changes(partition, block) if block else [])

    def partitions(self) -> list[int]:
        """Partitions with an open block, ascending."""
        return sorted(self._open)

    def state(self, partition: int) -> dict[str, Any]:
        """Plain data to keep in a checkpoint: the open block, and closed rows not taken yet."""
        block = self._open.get(partition, _Block(0, -1))
        cubes = {cube: _columns(cube, rows) for cube, rows in block.rows.items()}
        closed = [[o.block, o.version, o.cubes] for o in self._closed.get(partition, [])]
        return {"block": block.number, "version": block.version, "cubes": cubes, "closed": closed}

    def restore(self, partition: int, state: Mapping[str, Any]) -> None:
        """Go on from `state`. All rows count as changed: those sent since may have been lost."""
        block = _Block(state["block"], state["version"])
        for cube, columns in state["cubes"].items():
            spec = CUBES[cube]
            keys = list(zip(*(columns[name] for name in spec.dims), strict=True))
            values = zip(*(columns[name] for name in spec.sums), strict=True)
            block.rows[cube] = {key: list(row) for key, row in zip(keys, values, strict=True)}
            block.changed[cube] = dict.fromkeys(keys)
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
        changed, block.changed = block.changed, {}
        return [
            Outcomes(
                source=self.source,
                partition=partition,
                block=block.number,
                version=block.version,
                cubes=cubes,
            )
            for cubes in _messages({c: {k: block.rows[c][k] for k in keys} for c, keys in changed.items()})
        ]


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


class Groups(NamedTuple):
    """Distinct dimensions, and the totals of each sum over the rows that share them."""

    keys: list[Key]
    totals: list[list[float]]


def group(dims: Sequence[Column], sums: Sequence[Column]) -> Groups:
    """Add up `sums` over the rows that agree in all `dims`; columns as in `Counts.add`.

    >>> group([np.array([3, 4, 3]), "a"], [[1, 1, 5]])
    Groups(keys=[(3, 'a'), (4, 'a')], totals=[[6.0, 1.0]])
    """
    lengths = {len(c) for c in (*dims, *sums) if not _is_scalar(c)} or {1}  # type: ignore[arg-type]
    if len(lengths) > 1:
        raise ValueError(f"columns have different lengths: {sorted(lengths)}")
    n = lengths.pop()
    if n == 0:
        return Groups([], [[] for _ in sums])
    columns = [_factorise(c, n) for c in dims]
    code, size = np.zeros(n, np.int64), 1
    for codes, values in columns:
        if len(values) > 1:
            code, size = code * len(values) + codes, size * len(values)
            if size > DENSE + 4 * n:  # sort, so that the codes are as few as the groups
                distinct, code = np.unique(code, return_inverse=True)
                size = len(distinct)
    number = np.bincount(code, minlength=size)
    found = np.flatnonzero(number)
    row = np.zeros(size, np.int64)
    row[code] = np.arange(n)  # one row of each group, to read its dimensions from
    row = row[found]
    decoded = [[values[i] for i in codes[row].tolist()] for codes, values in columns]
    keys = list(zip(*decoded, strict=True))
    return Groups(keys, [_totals(c, code, number, found) for c in sums])


def _totals(column: Column, code: Array, number: Array, found: Array) -> list[float]:
    if _is_scalar(column):
        total = number * column
    else:
        total = np.bincount(code, weights=np.asarray(column, np.float64), minlength=len(number))
    values: list[float] = total[found].tolist()
    return values


def _is_scalar(column: Column) -> TypeGuard[Scalar]:
    return isinstance(column, str | int | float | np.generic)


def _factorise(column: Column, n: int) -> tuple[Array, Sequence[Any]]:
    """Codes [n] of a column, and the value that each code stands for."""
    if _is_scalar(column):
        return np.zeros(n, np.int64), [column.item() if isinstance(column, np.generic) else column]
    if isinstance(column, Coded):
        return column.codes.astype(np.int64), column.values
    if isinstance(column, np.ndarray) and column.dtype.kind in "iub":
        low, high = int(column.min()), int(column.max())
        if high - low < DENSE:
            return column.astype(np.int64) - low, range(low, high + 1)
    if isinstance(column, np.ndarray) and column.dtype.kind in "iuf":
        distinct, codes = np.unique(column, return_inverse=True)
        return codes, distinct.tolist()
    seen: dict[Any, int] = {}
    values = column.tolist() if isinstance(column, np.ndarray) else column
    return np.array([seen.setdefault(v, len(seen)) for v in values], np.int64), list(seen)  # type: ignore[union-attr]


def _columns(cube: str, rows: Mapping[Key, Row]) -> dict[str, list[Any]]:
    spec = CUBES[cube]
    by_dims = zip(*rows, strict=True) if rows else ([] for _ in spec.dims)
    columns: dict[str, list[Any]] = {k: list(v) for k, v in zip(spec.dims, by_dims, strict=True)}
    by_sums = zip(*rows.values(), strict=True) if rows else ([] for _ in spec.sums)
    for (name, kind), values in zip(spec.sums.items(), by_sums, strict=True):
        columns[name] = [float(v) for v in values] if kind == REAL else [round(v) for v in values]
    return columns


def _messages(cubes: Mapping[str, Mapping[Key, Row]]) -> Iterator[dict[str, dict[str, list[Any]]]]:
    """The rows as columns, a few cubes at a time, each time at most `MAX_BYTES`."""
    part: dict[str, dict[Key, Row]] = {}
    size = 0
    for cube, rows in cubes.items():
        for key, row in rows.items():
            # MessagePack: at most 9 bytes a number, 4 a character and 5 to start a text
            size += 9 * len(row) + sum(5 + 4 * len(v) if isinstance(v, str) else 9 for v in key)
            if size > MAX_BYTES and part:
                yield {c: _columns(c, r) for c, r in part.items()}
                part, size = {}, 0
            part.setdefault(cube, {})[key] = row
    if part:
        yield {c: _columns(c, r) for c, r in part.items()}


def latency_bin(ms: Array) -> Array:
    """Upper edge (ms) of the bin of each latency, as dimension ``upto``: powers of 2 ** (1/4), at least 1.

    >>> latency_bin(np.array([0.2, 3.0, 4.0])).round(2).tolist()
    [1.0, 3.36, 4.0]
    """
    edge: Array = 2.0 ** (np.ceil(BINS_PER_OCTAVE * np.log2(np.maximum(ms, 1.0))) / BINS_PER_OCTAVE)
    return edge
