"""Outcomes as rows of the cubes: checked, and many messages put together for one insert."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from stream.errors import Poison
from stream.messages import CUBES, Cube, Outcomes, decode_outcomes

Rows = dict[str, dict[str, list[Any]]]
"""cube -> column -> values, the columns of one cube of one length"""

KINDS: dict[str, Any] = {
    "String": list[str],
    "DateTime": list[Annotated[int, Meta(ge=0, lt=1 << 32)]],
    "Float64": list[float],
    "UInt8": list[Annotated[int, Meta(ge=0, lt=1 << 8)]],
    "UInt16": list[Annotated[int, Meta(ge=0, lt=1 << 16)]],
    "UInt32": list[Annotated[int, Meta(ge=0, lt=1 << 32)]],
    "UInt64": list[Annotated[int, Meta(ge=0)]],
    "Int16": list[Annotated[int, Meta(ge=-(1 << 15), lt=1 << 15)]],
}
"""What a column of each ClickHouse type that `CUBES` uses may hold."""

OWN = {"partition": 1 << 31, "block": 1 << 63, "version": 1 << 63}


def decode(value: bytes | None) -> Outcomes:
    """One message of `outcomes`, with every value known to fit its column.

    Raises
    ------
    Poison
        Naming cube and column.

    Examples
    --------
    >>> decode(b"nonsense")
    Traceback (most recent call last):
    stream.errors.Poison: Expected `array`, got `int`
    """
    outcomes = decode_outcomes(value)
    for name, bound in OWN.items():
        if not -bound <= getattr(outcomes, name) < bound:
            raise Poison(f"{name} {getattr(outcomes, name)} does not fit")
    checked = {name: _check(name, columns) for name, columns in outcomes.cubes.items()}
    return msgspec.structs.replace(outcomes, cubes=checked)


def _check(name: str, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Columns in the types of the cube; those that it does not have are refused."""
    if name not in CUBES:
        raise Poison(f"cube {name}: there is none of that name")
    cube = CUBES[name]
    kinds = {**cube.dims, **cube.sums}
    if columns.keys() != kinds.keys():
        raise Poison(f"cube {name}: has columns {', '.join(columns)} instead of {', '.join(kinds)}")
    if len({len(values) for values in columns.values()}) > 1:
        raise Poison(f"cube {name}: columns of different lengths")
    return {column: _convert(name, cube, column, columns[column]) for column in kinds}


def _convert(name: str, cube: Cube, column: str, values: list[Any]) -> list[Any]:
    kind = cube.dims.get(column) or cube.sums[column]
    try:
        converted: list[Any] = msgspec.convert(values, KINDS[kind])
    except msgspec.ValidationError as error:
        raise Poison(f"cube {name}, column {column}: {error}") from None
    # one NaN in a sum would be there for good
    if kind == "Float64" and column in cube.sums and not all(map(math.isfinite, converted)):
        raise Poison(f"cube {name}, column {column}: not finite")
    return converted


def together(messages: Iterable[Outcomes]) -> Rows:
    """Rows of many messages, one set of columns per cube, ready for `Store.insert`.

    >>> cubes = {"truth": {"second": [9], "arm": ["a"], "impressions": [1], "expected": [0.5], "best": [1.0]}}
    >>> one = Outcomes(source="rank", partition=0, block=0, version=7, cubes=cubes)
    >>> rows = together([one, msgspec.structs.replace(one, partition=1)])
    >>> rows["truth"]["partition"], rows["truth"]["expected"]
    ([0, 1], [0.5, 0.5])
    """
    rows: Rows = {}
    for message in messages:
        for cube, columns in message.cubes.items():
            count = len(columns["second"])
            named = {
                key: [getattr(message, key)] * count for key in ("source", "partition", "block", "version")
            }
            into = rows.setdefault(cube, {})
            for column, values in {**named, **columns}.items():
                into.setdefault(column, []).extend(values)
    return {cube: columns for cube, columns in rows.items() if columns["second"]}
