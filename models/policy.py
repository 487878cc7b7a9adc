"""How much of the model learns from what comes: the fine-tuning policies.

======= ==================================================================================================
full    everything
sparse  the rows of items and categories
head    the rows, and of the dense weights the last ones (`HEADS`)
lora    the rows, the last dense weights, and low-rank additions to the large ones (`models.lora`)
dynamic as ``sparse`` while the loss of what comes is on its level, as ``full`` from when it has risen until
        it has been on one level for a while
======= ==================================================================================================

A model that begins from nothing needs its dense weights: all begin as ``full``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from models.batch import Array
from models.drift import Level
from models.lora import FACTORS

HEADS = (
    "deep3",
    "wide",
    "wide_bias",
    "dot",
    "click",
    "cart",
    "purchase",
    "place_score",
    "place_click",
)
"""Dense weights behind the last layer that all tasks share."""

POLICIES = ("full", "sparse", "head", "lora", "dynamic")

WARM = 1000
"""Dense steps after which a model is not young any more."""

CALM = 100
"""Batches on one level, new lists each, after which the dense weights may rest."""


def learning(mode: str, names: Iterable[str]) -> frozenset[str]:
    """Those of the dense weights `names` that learn in this mode, any policy but ``dynamic``.

    >>> sorted(learning("head", ["deep1", "deep3", "dot"])), sorted(learning("sparse", ["deep1", "dot"]))
    (['deep3', 'dot'], [])
    """
    if mode == "full":
        return frozenset(names) - FACTORS
    return frozenset(names) & {"sparse": frozenset(), "head": {*HEADS}, "lora": {*HEADS, *FACTORS}}[mode]


class Policy:
    """What learns now.

    Parameters
    ----------
    name
        One of `POLICIES`.

    Attributes
    ----------
    broken : bool
        Whether the losses seen last have shown a sudden rise: the world has changed at once.

    Raises
    ------
    ValueError
        When there is no such policy.

    Examples
    --------
    >>> policy = Policy("sparse")
    >>> policy.mode(WARM - 1), policy.mode(WARM)
    ('full', 'sparse')
    """

    def __init__(self, name: str) -> None:
        if name not in POLICIES:
            raise ValueError(f"no policy {name!r}; there are {', '.join(POLICIES)}")
        self.name = name
        self._levels = [Level(), Level()]
        self._calm = 0
        self._alarmed = True
        self.broken = False

    def mode(self, steps: int) -> str:
        """``full``, ``sparse``, ``head`` or ``lora``, after so many dense steps."""
        if steps < WARM or (self.name == "dynamic" and self._alarmed):
            return "full"
        return "sparse" if self.name == "dynamic" else self.name

    def saw(self, order: float, probability: float, lists: tuple[float, float]) -> None:
        """Losses of one batch of new lists, before it was learned from; NaN where there is none.

        `lists` says of how many each is the mean: what one list says is mostly chance. The losses are watched
        apart: tastes may change and not how much is clicked, and the other way round.
        """
        losses = zip(self._levels, (order, probability), lists, strict=True)
        seen = [(level.add(loss, n), level.sudden) for level, loss, n in losses if math.isfinite(loss)]
        changes = [change for change, _ in seen]
        self.broken = (1, True) in seen
        # while the dense weights learn, a loss that falls says that they have not finished
        if 1 in changes or (self._alarmed and any(changes)):
            self._calm, self._alarmed = 0, True
            return
        self._calm += 1
        self._alarmed = self._alarmed and self._calm < CALM

    def state(self) -> dict[str, Array]:
        """Everything `load_state` needs."""
        levels = np.stack([level.state() for level in self._levels])
        return {"levels": levels, "calm": np.array([self._calm, self._alarmed])}

    def load_state(self, state: dict[str, Array]) -> None:
        """Go on from `state`."""
        for level, known in zip(self._levels, state["levels"], strict=True):
            level.load_state(known)
        self._calm, self._alarmed = int(state["calm"][0]), bool(state["calm"][1])
