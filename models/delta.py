"""Learned arrays on the wire: what changed (delta), or everything (snapshot), in one format.

A delta carries small arrays that changed (``dense``, each whole), changed rows of row arrays (``blocks``:
arrays that change together share one row index), rows that changed hands (``assigned``) and lists. A
snapshot is the delta from nothing, with the scoring graph. MessagePack around raw little-endian columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from models.batch import Array
from models.columns import Column, pack, pack_all, unpack, unpack_all
from models.table import EMPTY, Table

MARGIN = 8_192
"""Bytes of a budget kept for what is not counted: names, shapes, MessagePack's own."""


STEP = 256


class Dirty:
    """Which rows changed since they were last taken; takes go round, so that no row starves.

    Parameters
    ----------
    rows
        How many rows there are.

    Attributes
    ----------
    flags : bool [rows]
        For kernels: set ``flags[row] = True`` where a row changes.

    Examples
    --------
    >>> dirty = Dirty(8)
    >>> dirty.mark(np.array([1, 5, -1, 6]))
    >>> dirty.take(2).tolist()
    [1, 5]
    >>> dirty.mark(np.array([1]))
    >>> dirty.take(2).tolist(), len(dirty)
    ([6, 1], 0)
    """

    def __init__(self, rows: int) -> None:
        self.flags = np.zeros(rows, np.bool_)
        self._next = 0

    def __len__(self) -> int:
        return int(np.count_nonzero(self.flags))

    def mark(self, rows: Array) -> None:
        """Mark `rows` (int [n]); -1 is ignored."""
        self.flags[rows[rows >= 0]] = True

    def peek(self, limit: int, hold: Array | None = None) -> Array:
        """Up to `limit` marked rows (int64), the longest waiting first; not those where `hold` is set."""
        marked = np.flatnonzero(self.flags if hold is None else self.flags & ~hold)
        start = int(np.searchsorted(marked, self._next))
        return np.concatenate(
            [marked[start : start + limit], marked[:start][: max(0, limit - len(marked) + start)]]
        )

    def done(self, rows: Array) -> None:
        """Unmark `rows`, as `peek` gave them."""
        self.flags[rows] = False
        if len(rows):
            self._next = int(rows[-1]) + 1

    def take(self, limit: int, hold: Array | None = None) -> Array:
        """`peek`, then `done`."""
        rows = self.peek(limit, hold)
        self.done(rows)
        return rows


@dataclass(frozen=True)
class Assigned:
    """Rows that changed hands: ``ids[k]`` has ``rows[k]`` now (0: nobody), and its name if known."""

    rows: Array
    ids: Array
    names: list[str | None]


@dataclass(frozen=True)
class Block:
    """Values of some rows: ``values[name][k]`` belongs to row ``rows[k]``; one row array a name."""

    rows: Array
    values: dict[str, Array]


@dataclass(frozen=True)
class Delta:
    """What one message or one snapshot holds; `graph` is empty in a delta."""

    schema: int
    dense: dict[str, Array]
    assigned: Assigned
    blocks: list[Block]
    lists: dict[str, Array] = field(default_factory=dict)
    graph: bytes = b""


@dataclass(frozen=True)
class Group:
    """Row arrays that change together, by name (each [rows, ...]), and which rows did.

    `owned`: the rows are those that `Owners` tells the owners of.
    """

    arrays: Mapping[str, Array]
    dirty: Dirty
    owned: bool = True

    @property
    def row_bytes(self) -> int:
        """Bytes that one row takes on the wire, its index included."""
        return 4 + sum(a.itemsize * int(np.prod(a.shape[1:])) for a in self.arrays.values())


@dataclass(frozen=True)
class Owners:
    """Who has each row (`ids`, uint64 [rows], 0 free), by what name, and which rows changed hands."""

    ids: Array
    names: Mapping[int, str]
    dirty: Dirty


def take_delta(
    schema: int,
    dense: Mapping[str, Array],
    owners: Owners,
    groups: Sequence[Group],
    lists: Mapping[str, Array],
    budget: int,
) -> bytes:
    """Encode what changed in at most `budget` bytes; what does not fit stays dirty.

    Dense arrays and lists travel first, then rows that changed hands, then the groups, which share
    what is left evenly (what one does not need goes to the others). A row whose new owner does not
    fit keeps its values back as well.

    Raises
    ------
    ValueError
        When dense arrays and lists alone exceed the budget.
    """
    left = budget - MARGIN - sum(a.nbytes for a in (*dense.values(), *lists.values()))
    if left < 0:
        raise ValueError(
            f"dense arrays need {budget - left} bytes, a delta has {budget}: make the model smaller"
        )
    assigned, used = _take_owners(owners, left)
    left -= used
    blocks: dict[int, Block] = {}
    needs = [len(g.dirty) * g.row_bytes for g in groups]
    for turn, index in enumerate(np.argsort(needs, kind="stable")):
        group = groups[index]
        hold = owners.dirty.flags if group.owned else None
        rows = group.dirty.take(left // (len(groups) - turn) // group.row_bytes, hold)
        left -= len(rows) * group.row_bytes
        blocks[int(index)] = Block(rows.astype(np.int32), {n: a[rows] for n, a in group.arrays.items()})
    ordered = [blocks[i] for i in range(len(groups)) if len(blocks[i].rows)]
    return encode_delta(Delta(schema, dict(dense), assigned, ordered, dict(lists)))


def changed(arrays: Mapping[str, Array], before: Mapping[str, Array]) -> dict[str, Array]:
    """Those that are not as they were before.

    >>> changed({"a": np.ones(1), "b": np.ones(1), "c": np.ones(1)}, {"a": np.zeros(1), "b": np.ones(1)})
    {'a': array([1.]), 'c': array([1.])}
    """
    return {n: a for n, a in arrays.items() if n not in before or not np.array_equal(a, before[n])}


def _take_owners(owners: Owners, budget: int) -> tuple[Assigned, int]:
    # 12 bytes of row and id; a string has up to 5 in front of it, None is 1
    rows = owners.dirty.peek(budget // 13)
    names = [owners.names.get(r) if owners.ids[r] else None for r in rows.tolist()]
    cost = np.cumsum([13 if name is None else 17 + len(name.encode()) for name in names], dtype=np.int64)
    fits = int(np.searchsorted(cost, budget, side="right"))
    rows = rows[:fits]
    owners.dirty.done(rows)
    assigned = Assigned(rows.astype(np.int32), owners.ids[rows], names[:fits])
    return assigned, int(cost[fits - 1]) if fits else 0


def snapshot_delta(
    schema: int,
    dense: Mapping[str, Array],
    owners: Owners,
    groups: Sequence[Group],
    lists: Mapping[str, Array],
    graph: bytes,
) -> bytes:
    """Encode everything, row arrays as far as they are in use; marks stay, for deltas that go on."""
    rows = np.flatnonzero(owners.ids)
    names = [owners.names.get(r) for r in rows.tolist()]
    assigned = Assigned(rows.astype(np.int32), owners.ids[rows], names)
    blocks = []
    for group in groups:
        top = max((len(used_rows(a)) for a in group.arrays.values()), default=0)
        blocks.append(Block(np.arange(top, dtype=np.int32), {n: a[:top] for n, a in group.arrays.items()}))
    return encode_delta(Delta(schema, dict(dense), assigned, blocks, dict(lists), graph))


def used_rows(array: Array) -> Array:
    """View of `array` without its last rows that are all zeros, in steps of `STEP` rows."""
    end = len(array)
    while end > 0 and not array[max(0, end - STEP) : end].any():
        end -= STEP
    return array[: max(0, end)]


def restore_rows(array: Array, values: Array) -> None:
    """Write what `used_rows` gave back into `array`, zeros after it."""
    array[: len(values)] = values
    array[len(values) :] = 0


class _Wire(msgspec.Struct, array_like=True, frozen=True):
    schema: int
    dense: dict[str, Column]
    assigned: tuple[Column, Column, list[str | None]]
    blocks: list[tuple[Column, dict[str, Column]]]
    lists: dict[str, Column]
    graph: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Wire)


def encode_delta(delta: Delta) -> bytes:
    """Encode one delta or snapshot."""
    rows, ids = pack(delta.assigned.rows), pack(delta.assigned.ids)
    blocks = [(pack(b.rows), pack_all(b.values)) for b in delta.blocks]
    names = delta.assigned.names
    return _encoder.encode(
        _Wire(
            delta.schema,
            pack_all(delta.dense),
            (rows, ids, names),
            blocks,
            pack_all(delta.lists),
            delta.graph,
        )
    )


def decode_delta(data: bytes, schema: int) -> Delta:
    """Decode what `encode_delta` wrote; arrays are read-only views of `data`.

    Parameters
    ----------
    data
        The bytes; their checksum is the caller's to check.
    schema
        `models.batch.Shape.schema` of the reader.

    Raises
    ------
    ValueError
        When the bytes are damaged, or written by a model of another schema.
    """
    try:
        wire = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a model delta: {error}") from None
    if wire.schema != schema:
        raise ValueError(
            f"model of schema {wire.schema:08x}, but this process has {schema:08x}: use equal settings"
        )
    assigned = Assigned(_rows(wire.assigned[0]), unpack(wire.assigned[1]), wire.assigned[2])
    if assigned.ids.dtype != np.uint64:
        raise ValueError("not a model delta: ids are not of 64 bits")
    _check_lengths(assigned.rows, [assigned.ids, np.array(assigned.names, object)])
    blocks = [Block(_rows(rows), unpack_all(values)) for rows, values in wire.blocks]
    for block in blocks:
        _check_lengths(block.rows, block.values.values())
    return Delta(schema, unpack_all(wire.dense), assigned, blocks, unpack_all(wire.lists), wire.graph)


def _rows(column: Column) -> Array:
    rows = unpack(column)
    if rows.ndim != 1 or rows.dtype != np.int32 or (len(rows) and rows.min() < 0):
        raise ValueError("not a model delta: a row index is not a list of rows")
    return rows


def _check_lengths(rows: Array, columns: Iterable[Array]) -> None:
    if any(column.shape[:1] != rows.shape for column in columns):
        raise ValueError("not a model delta: columns of one block differ in length")


def apply_assigned(
    assigned: Assigned, table: Table, names: list[str | None], arrays: Mapping[str, Array]
) -> None:
    """Let rows change hands; a row's values (``arrays[name]``, each [rows, ...]) start at zero.

    An id that moves leaves its old row, whether or not that row's own change has arrived.

    Raises
    ------
    ValueError
        When there is no such row; nothing was written then.
    """
    if len(assigned.rows) and assigned.rows.max() >= table.capacity:
        raise ValueError(f"model delta assigns row {assigned.rows.max()} of {table.capacity}")
    before = table.lookup(assigned.ids)
    left = before[(before >= 0) & (before != assigned.rows)]
    table.put(np.full(len(left), EMPTY), left)
    table.put(assigned.ids, assigned.rows)
    for row in left.tolist():
        names[row] = None
    for row, name in zip(assigned.rows.tolist(), assigned.names, strict=True):
        names[row] = name
    for array in arrays.values():
        array[assigned.rows] = 0


def apply_blocks(blocks: Sequence[Block], arrays: Mapping[str, Array]) -> None:
    """Write the rows of each block into the arrays of the same names.

    Raises
    ------
    ValueError
        When an array or row is unknown, or a value has another shape; nothing was written then.
    """
    for block in blocks:
        for name, values in block.values.items():
            if name not in arrays:
                raise ValueError(f"model delta has rows for {name!r}, which this process does not know")
            into = arrays[name]
            if values.shape[1:] != into.shape[1:] or (len(block.rows) and block.rows.max() >= len(into)):
                raise ValueError(f"model delta does not fit {name!r} of shape {into.shape}")
    for block in blocks:
        for name, values in block.values.items():
            arrays[name][block.rows] = values
