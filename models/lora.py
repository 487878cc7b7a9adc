"""Low-rank additions to the large matrices: W + B A, where W rests and only A and B learn and travel.

(LoRA: Hu et al., arXiv 2106.09685.) B starts at zero, so that nothing changes at first. A starts large enough
that a step of B moves the sum about as far as the same step of W would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from models.batch import Array

RANK = 4

LARGE = ("deep1", "deep2")
"""Dense weights that have additions."""

FACTORS = frozenset(f"{name}_{factor}" for name in LARGE for factor in "ab")
"""Names of the additions' factors: ``deep1_a`` [RANK, columns of deep1], ``deep1_b`` [its rows, RANK], ..."""

Matrix = TypeVar("Matrix", bound=Any)


def factors(dense: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Factors (float32) of additions to these dense weights that are zero."""
    found = {}
    for name in LARGE:
        rows, columns = dense[name].shape
        found[f"{name}_a"] = rng.normal(0, RANK**-0.5, (RANK, columns)).astype(np.float32)
        found[f"{name}_b"] = np.zeros((rows, RANK), np.float32)
    return found


def added(dense: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """Dense weights with what is added to them, without factors; arrays or tensors.

    >>> start = {name: np.ones((2, 3), np.float32) for name in LARGE}
    >>> both = start | factors(start, np.random.default_rng(0))
    >>> added(both).keys() == start.keys(), added(both)["deep1"].tolist() == start["deep1"].tolist()
    (True, True)
    """
    sums = {name: array for name, array in dense.items() if name not in FACTORS}
    for name in LARGE:
        if f"{name}_b" in dense:
            sums[name] = dense[name] + dense[f"{name}_b"] @ dense[f"{name}_a"]
    return sums


def of_factors(dense: Mapping[str, Matrix], gradients: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """Gradients of the factors in `dense`, from those of what they are added to."""
    found = {}
    for name in LARGE:
        if f"{name}_b" in dense:
            found[f"{name}_a"] = dense[f"{name}_b"].T @ gradients[name]
            found[f"{name}_b"] = gradients[name] @ dense[f"{name}_a"].T
    return found


def merged(state: Mapping[str, Array]) -> dict[str, Array]:
    """State of `models.dense.Dense` in which the additions have become part of the weights."""
    parts = dict(state)
    for vector in ("flat", "mean"):
        weights = {name[len(vector) + 1 :]: a for name, a in state.items() if name.startswith(vector + ".")}
        parts |= {f"{vector}.{name}": array for name, array in added(weights).items()}
    return parts
