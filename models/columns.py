"""Arrays within MessagePack: type, shape and the raw little-endian values."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from models.batch import Array

NUMBERS = frozenset(np.dtype(name).newbyteorder("<").str for name in "?bBhHiIqQefd")
"""Types that may travel, by NumPy's names."""


class Column(msgspec.Struct, array_like=True, frozen=True):
    """One array: NumPy's name of its type, its shape, its bytes."""

    dtype: str
    shape: list[int]
    data: bytes


def pack(array: Array) -> Column:
    """Copy an array of numbers into a column."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return Column(little.dtype.str, list(array.shape), little.tobytes())


def pack_all(arrays: Mapping[str, Array]) -> dict[str, Column]:
    """`pack` by name."""
    return {name: pack(array) for name, array in arrays.items()}


def unpack(column: Column) -> Array:
    """Read-only array on the column's bytes.

    Raises
    ------
    ValueError
        When type, shape and bytes do not belong together.

    Examples
    --------
    >>> unpack(pack(np.array([[1, 2]], np.uint16)))
    array([[1, 2]], dtype=uint16)
    """
    if column.dtype not in NUMBERS or min(column.shape, default=0) < 0:
        raise ValueError(f"not an array: type {column.dtype!r}, shape {column.shape}")
    return np.frombuffer(column.data, column.dtype).reshape(column.shape)


def unpack_all(columns: Mapping[str, Column]) -> dict[str, Array]:
    """`unpack` by name; raises ValueError as it does."""
    return {name: unpack(column) for name, column in columns.items()}
