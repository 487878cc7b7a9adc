"""Row arrays of the model and how single rows of them are learned."""

from __future__ import annotations

from collections.abc import Mapping

import numba
import numpy as np
import torch
from torch import Tensor

from models.batch import Array, Shape
from models.delta import Dirty
from models.tensors import moved

MEMORY = 200
"""Updates that a row's mean squared gradient looks back on: rows of popular items keep learning."""

DOUBT = 10.0
"""Squared gradient that every row starts with: the first few examples of an item move it only a little."""


@numba.njit(cache=True)
def _compact(rows: Array, scratch: Array, unique: Array, inverse: Array) -> int:
    """Number the distinct `rows` in order of appearance; `scratch` is all -1, before and after."""
    count = 0
    for i in range(len(rows)):
        row = rows[i]
        if scratch[row] < 0:
            scratch[row] = count
            unique[count] = row
            count += 1
        inverse[i] = scratch[row]
    for k in range(count):
        scratch[unique[k]] = -1
    return count


@numba.njit(cache=True)
def _add_up(values: Array, index: Array, sums: Array) -> None:
    """Add each of `values` [n, ...] to the one of `sums` that its `index` names."""
    for i in range(len(values)):
        for j in range(values.shape[1]):
            sums[index[i], j] += values[i, j]


class Rows:
    """Row arrays with one index: values, what their optimiser knows, and the last good values.

    On the CPU the values share their memory with numpy arrays, see `arrays`.

    Parameters
    ----------
    values
        Row arrays (float32) by name, each [R, ...]. They are taken over where the device is the CPU.
    device
        Where they live.

    Attributes
    ----------
    dirty : Dirty
        Rows that changed.

    Examples
    --------
    >>> rows = Rows({"bias": np.zeros(4, np.float32)}, torch.device("cpu"))
    >>> rows.step(np.array([2, 0, 2]), {"bias": torch.tensor([0.4, 0.0, 0.6])}, 0.5)
    >>> rows.arrays()["bias"].round(2).tolist()
    [0.0, 0.0, -0.15000000596046448, 0.0]
    >>> rows.dirty.flags.tolist()
    [False, False, True, False]
    """

    def __init__(self, values: dict[str, Array], device: torch.device) -> None:
        self.values = {name: torch.from_numpy(v).to(device) for name, v in values.items()}
        self.squares = {name: v.new_zeros(len(v)) for name, v in self.values.items()}
        self.device = device
        count = len(next(iter(values.values())))
        self.dirty = Dirty(count)
        self._scratch = np.full(count, -1, np.int32)
        # copy on write: the last good rows, where they differ from what is there now
        self._good = {name: torch.empty_like(array) for name, array in self._arrays().items()}
        self._saved = np.zeros(count, np.bool_)

    def arrays(self) -> dict[str, Array]:
        """The values as numpy arrays: shared on the CPU, copied from a GPU."""
        return {name: v.cpu().numpy() for name, v in self.values.items()}

    def at(self, name: str, rows: Array) -> Tensor:
        """A copy of the array `name` at these rows, int64 of any shape."""
        values = self.values[name]
        return values.index_select(0, self._index(rows.ravel())).view(*rows.shape, *values.shape[1:])

    def step(self, rows: Array, gradients: Mapping[str, Tensor], learning_rate: float) -> None:
        """Row-wise Adagrad with fading memory.

        G <- G (1 - 1 / MEMORY) + |g|^2,   row <- row - learning_rate g / sqrt(G + DOUBT)

        (Adagrad: Duchi et al., 2011. One G per row keeps the optimiser small.)

        Parameters
        ----------
        rows : int64 [n]
            A row that stands there several times has the sum of these gradients.
        gradients
            Of what stands at these places, [n, ...], or at the first of them only. In loss per list, not per
            batch: `DOUBT` is on that scale.
        learning_rate
            Step of a row that was seen often.
        """
        unique, inverse = self._compact(rows)
        sums = {name: self._sums(gradient, inverse, len(unique)) for name, gradient in gradients.items()}
        touched = torch.stack([g.reshape(len(g), -1).any(1) for g in sums.values()]).any(0)
        unique = unique[touched.cpu().numpy()]
        self.save(unique)
        index = self._index(unique)
        for name, given in sums.items():
            gradient = given[touched]
            squared = gradient.square() if gradient.ndim == 1 else gradient.square().sum(1)
            square = self.squares[name][index].mul_(1 - 1 / MEMORY).add_(squared)
            self.squares[name].index_copy_(0, index, square)
            scale = (square + DOUBT).rsqrt_().mul_(-learning_rate)
            step = gradient * (scale if gradient.ndim == 1 else scale.unsqueeze(1))
            self.values[name].index_add_(0, index, step)
        self.dirty.mark(unique)

    def copy(self, source: Array, rows: Array) -> None:
        """Give `rows` (distinct) the values of `source`, with a new optimiser; they are good as these are."""
        into, out = self._index(rows), self._index(source)
        saved = torch.from_numpy(self._saved[source]).to(self.device)
        for name, array in self.values.items():
            now, good = array[out], self._good[name][out]
            array[into] = now
            self._good[name][into] = torch.where(saved if now.ndim == 1 else saved.unsqueeze(1), good, now)
        for name, square in self.squares.items():
            square[into] = 0
            self._good["square." + name][into] = 0
        self._saved[rows] = True
        self.dirty.mark(rows)

    def save(self, rows: Array) -> None:
        """Keep the good values of `rows` (distinct), which are about to change."""
        fresh = rows[~self._saved[rows]]
        index = self._index(fresh)
        for name, array in self._arrays().items():
            self._good[name].index_copy_(0, index, array[index])
        self._saved[fresh] = True

    def keep(self) -> None:
        """What is there now is good."""
        self._saved[:] = False

    def rollback(self) -> None:
        """Go back to what was good at the last `keep`."""
        rows = np.flatnonzero(self._saved)
        index = self._index(rows)
        for name, array in self._arrays().items():
            array.index_copy_(0, index, self._good[name][index])
        self._saved[:] = False
        self.dirty.mark(rows)

    def state(self) -> dict[str, Array]:
        """Values and optimiser, copied."""
        return {name: array.cpu().numpy().copy() for name, array in self._arrays().items()}

    def load_state(self, state: dict[str, Array]) -> None:
        """Continue from `state`, which is good."""
        for name, array in self._arrays().items():
            array.copy_(torch.from_numpy(state[name].copy()))
        self.keep()

    def _index(self, rows: Array) -> Tensor:
        return moved(rows.astype(np.int64, copy=False), self.device)

    def _compact(self, rows: Array) -> tuple[Array, Array]:
        """Distinct rows and, for each of `rows`, its index in them."""
        unique, inverse = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        count = _compact(rows, self._scratch, unique, inverse)
        return unique[:count], inverse

    def _sums(self, values: Tensor, index: Array, count: int) -> Tensor:
        """Sums [count, ...] of those `values` [n, ...] that have the same index, the first n of `index`."""
        sums = values.new_zeros((count, *values.shape[1:]))
        if self.device.type == "cpu":
            _add_up(values.reshape(len(values), -1).numpy(), index, sums.view(count, -1).numpy())
            return sums
        return sums.index_add_(0, self._index(index[: len(values)]), values)

    def _arrays(self) -> dict[str, Tensor]:
        return self.values | {"square." + name: square for name, square in self.squares.items()}


def item_rows(shape: Shape, rng: np.random.Generator, device: torch.device) -> Rows:
    """Rows of items, ``embedding`` [R, D] and ``bias`` [R]; those that nobody has yet are zero."""
    embedding = np.zeros((shape.rows, shape.width), np.float32)
    embedding[: shape.cold] = _small(rng, shape.cold, shape.width)
    return Rows({"embedding": embedding, "bias": np.zeros(shape.rows, np.float32)}, device)


def category_rows(shape: Shape, rng: np.random.Generator, device: torch.device) -> Rows:
    """Rows of category buckets, ``category`` [C, D]."""
    return Rows({"category": _small(rng, shape.categories, shape.width)}, device)


def _small(rng: np.random.Generator, rows: int, width: int) -> Array:
    """Random rows (float32) of length about 0.3."""
    random: Array = 0.3 / np.sqrt(width) * rng.standard_normal((rows, width))
    return random.astype(np.float32)
