"""Dense weights, their optimiser, and their mean over the last steps, which is what is served."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numba
import numpy as np
import torch
from torch import Tensor

from models.batch import Array
from models.compiled import FAST

DECAY = 1.0
"""Weight decay, in learning rates a step, beside the gradient (AdamW: Loshchilov and Hutter, arXiv
1711.05101): what is replayed is few examples at first, and is not to be known by heart."""

CLIP = 5.0
"""Largest norm of the gradient; a batch of outliers moves the weights no further than others."""

MEAN = 40
"""Steps that the served weights are the mean of; a single step's weights are noisy."""

BETA1, BETA2, EPSILON = 0.9, 0.99, 1e-8
"""Adam's (Kingma and Ba, arXiv 1412.6980); a short second memory follows a stream that drifts."""


class Dense:
    """Named arrays in one vector: one optimiser step, one copy to keep.

    Parameters
    ----------
    start
        The weights (float32) before anything was learned.
    decayed
        Names of those that fade where nothing teaches them.
    device
        Where they live.

    Attributes
    ----------
    learning : frozenset[str]
        Names of those that learn; the others rest.
    steps : int
        Taken so far.
    """

    def __init__(self, start: Mapping[str, Array], decayed: Collection[str], device: torch.device) -> None:
        self._shapes = {name: array.shape for name, array in start.items()}
        self._sizes = {name: array.size for name, array in start.items()}
        self._fading = {name: DECAY * (name in decayed) for name in start}
        flat = torch.from_numpy(np.concatenate([array.ravel() for array in start.values()])).to(device)
        self._vectors = {"flat": flat, "mean": flat.clone()}
        self._vectors |= {name: torch.zeros_like(flat) for name in ("first", "second")}
        self._parts = {name: self.named(vector) for name, vector in self._vectors.items()}
        self.learning = frozenset(start)
        self._fades = torch.zeros_like(flat)
        self.let_learn(start)
        self.steps = 0
        self.keep()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all weights."""
        return tuple(self._shapes)

    @property
    def share(self) -> float:
        """Share of the weights that learns."""
        return sum(self._sizes[name] for name in self.learning) / sum(self._sizes.values())

    def let_learn(self, names: Collection[str]) -> None:
        """Let these weights learn, and the others rest as they are served."""
        self.learning = frozenset(names)
        for name, fades in self.named(self._fades).items():
            fades.fill_(self._fading[name] * (name in self.learning))
            if name not in self.learning:
                self._parts["flat"][name].copy_(self._parts["mean"][name])
                self._parts["first"][name].zero_()

    def leaf(self) -> Tensor:
        """The vector of weights, to take a gradient of."""
        return self._vectors["flat"].detach().requires_grad_()

    def learned(self, leaf: Tensor) -> dict[str, Tensor]:
        """The weights in `leaf` by name; gradients stop at those that rest."""
        return {name: w if name in self.learning else w.detach() for name, w in self.named(leaf).items()}

    def now(self) -> dict[str, Tensor]:
        """Views of the newest weights."""
        return self._parts["flat"]

    def mean(self) -> dict[str, Tensor]:
        """Views of the weights that are served."""
        return self._parts["mean"]

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of a vector's parts, by name."""
        parts = torch.split(vector, list(self._sizes.values()))
        return {name: p.view(size) for (name, size), p in zip(self._shapes.items(), parts, strict=True)}

    def gradient(self, parts: Mapping[str, Tensor]) -> Tensor:
        """A vector of gradients by name; zero where there is none, or weights rest."""
        given = parts.keys() & self.learning
        return torch.cat(
            [parts[n].flatten() if n in given else self._fades.new_zeros(s) for n, s in self._sizes.items()]
        )

    def step(self, gradient: Tensor, norm: float, learning_rate: float) -> None:
        """Take one step of Adam against a gradient of this norm, zero where weights rest."""
        self.steps += 1
        flat, mean, first, second = self._vectors.values()
        vectors = flat, mean, first, second, self._fades, gradient
        scales = (
            min(1.0, CLIP / (norm + 1e-12)),
            learning_rate,
            learning_rate / (1 - BETA1**self.steps),
            1 / (1 - BETA2**self.steps),
            # young, the mean forgets faster (polynomial-decay averaging: Shamir and Zhang, ICML 2013)
            max(1 / MEAN, 4 / (4 + self.steps)),
        )
        if gradient.device.type == "cpu":
            adam_compiled(*(v.numpy() for v in vectors), *map(np.float32, scales))  # type: ignore[arg-type]
        else:
            adam(*vectors, *scales)

    def keep(self) -> None:
        """The weights as they are now are good."""
        self._good = {name: vector.clone() for name, vector in self._vectors.items()}
        self._good_steps = self.steps

    def rollback(self) -> None:
        """Return to what was good at the last `keep`, optimiser included.

        That is the mean, which was served and judged. The newest step may have been bad long before the mean
        shows it: going on from there would spoil every version to come.
        """
        for name, vector in self._vectors.items():
            vector.copy_(self._good[name])
        self._vectors["flat"].copy_(self._vectors["mean"])
        self.steps = self._good_steps

    def state(self) -> dict[str, Array]:
        """Everything `load_state` needs, copied: ``flat.deep1``, ..., ``steps``."""
        arrays = {
            f"{vector}.{name}": part.cpu().numpy().copy()
            for vector, parts in self._parts.items()
            for name, part in parts.items()
        }
        return arrays | {"steps": np.array([self.steps])}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Continue from `state`; weights that it does not have stay as they are."""
        for vector, parts in self._parts.items():
            for name, part in parts.items():
                if f"{vector}.{name}" in state:
                    part.copy_(torch.from_numpy(state[f"{vector}.{name}"].copy()))
        self.steps = int(state["steps"][0])


def adam(
    flat: Tensor, mean: Tensor, first: Tensor, second: Tensor, fades: Tensor, gradient: Tensor,
    clip: float, rate: float, step: float, unbiased: float, share: float,
) -> None:  # fmt: skip
    """Move weights, their mean and their moments; for any device."""
    gradient = gradient * clip
    first.lerp_(gradient, 1 - BETA1)
    second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
    flat.addcmul_(flat, fades, value=-rate)
    flat.addcdiv_(first, (second * unbiased).sqrt_().add_(EPSILON), value=-step)
    mean.lerp_(flat, share)


@numba.njit(cache=True, fastmath=FAST)
def adam_compiled(
    flat: Array, mean: Array, first: Array, second: Array, fades: Array, gradient: Array,
    clip: float, rate: float, step: float, unbiased: float, share: float,
) -> None:  # fmt: skip
    """The same, for the CPU."""
    new1, old2, new2 = np.float32(1 - BETA1), np.float32(BETA2), np.float32(1 - BETA2)
    for i in range(len(flat)):
        given = clip * gradient[i]
        first[i] += new1 * (given - first[i])
        second[i] = old2 * second[i] + new2 * given * given
        flat[i] -= rate * fades[i] * flat[i]
        flat[i] -= step * first[i] / (np.sqrt(unbiased * second[i]) + np.float32(EPSILON))
        mean[i] += share * (flat[i] - mean[i])
