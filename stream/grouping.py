"""Rows that agree in their dimensions, added up: columns in, columns out, no loop over the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

DENSE = 65_536
"""Groups found by counting, without sorting, as long as there are not many more than this."""

Array = NDArray[Any]
Key = tuple[Any, ...]
Scalar = str | int | float | np.generic


@dataclass(frozen=True)
class Coded:
    """A column of n values that are few: which of `values` each is (`codes`, int [n])."""

    codes: Array
    values: Sequence[Any]

    def __len__(self) -> int:
        return len(self.codes)


Column = Sequence[Any] | Array | Scalar | Coded


class Groups(NamedTuple):
    """Distinct dimensions, and the totals of each sum over the rows that share them."""

    keys: list[Key]
    totals: list[Array]  # float64 [groups], one for each sum


def count_rows(columns: Sequence[Column]) -> int:
    """How many rows columns of n values, or one for all rows, have; 1 where every one is for all.

    Raises
    ------
    ValueError
        When they have different lengths.
    """
    lengths = {len(c) for c in columns if not _is_scalar(c)} or {1}  # type: ignore[arg-type]
    if len(lengths) > 1:
        raise ValueError(f"columns have different lengths: {sorted(lengths)}")
    return lengths.pop()


def concat(parts: Sequence[Column], sizes: Sequence[int]) -> Column:
    """One column of all parts, each of so many rows.

    >>> concat(["a", "a"], [2, 3]), concat([np.array([1, 2]), 7], [2, 1]), concat(["a", ["b"]], [2, 1])
    ('a', array([1, 2, 7]), ['a', 'a', 'b'])
    """
    first = parts[0]
    if len(parts) == 1 or (_is_scalar(first) and all(_is_scalar(p) and p == first for p in parts)):
        return first
    if isinstance(first, Coded) and all(isinstance(p, Coded) and p.values is first.values for p in parts):
        return Coded(np.concatenate([p.codes for p in parts]), first.values)  # type: ignore[union-attr]
    if all(isinstance(p, np.ndarray | np.generic | int | float) for p in parts):
        return np.concatenate([np.broadcast_to(p, n) for p, n in zip(parts, sizes, strict=True)])  # type: ignore[arg-type]
    return [value for part, n in zip(parts, sizes, strict=True) for value in _listed(part, n)]


def _listed(column: Column, n: int) -> Sequence[Any]:
    if _is_scalar(column):
        return [column] * n
    if isinstance(column, Coded):
        return [column.values[i] for i in column.codes.tolist()]
    return column.tolist() if isinstance(column, np.ndarray) else column  # type: ignore[return-value]


def group(dims: Sequence[Column], sums: Sequence[Column], n: int | None = None) -> Groups:
    """Add up `sums` over the rows that agree in all `dims`; columns of n values, or one for all rows.

    >>> group([np.array([3, 4, 3]), "a"], [[1, 1, 5]])
    Groups(keys=[(3, 'a'), (4, 'a')], totals=[array([6., 1.])])

    Raises
    ------
    ValueError
        When the columns have different lengths.
    """
    n = count_rows([*dims, *sums]) if n is None else n
    if n == 0:
        return Groups([], [np.zeros(0) for _ in sums])
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


def _totals(column: Column, code: Array, number: Array, found: Array) -> Array:
    if _is_scalar(column):
        total: Array = number * np.float64(column)
    else:
        total = np.bincount(code, weights=np.asarray(column, np.float64), minlength=len(number))
    return total[found]


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
