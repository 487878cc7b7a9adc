"""Partitions are alike: visitors are dealt to them by a hash. One that is not brings something broken.

A world that changes changes everywhere; what one partition alone says (labels of a broken producer, a
crowd of bots) is kept out of training until that partition is like the others again.
"""

from __future__ import annotations

import numpy as np

from models.batch import Array, Lists
from models.quality import list_losses
from stream.train.buffer import Buffer

MEMORY = 100
"""Lists that a partition's mean looks back on: few, so that a broken one is known within a second or two."""

RATIO = 1.5
"""How many times the others' loss a partition's is when it is unlike them ..."""

ERRORS = 5.0
"""... and by how many standard errors; both are far beyond what chance deals out."""

ENOUGH = MEMORY / 4
"""Lists of a partition before it is judged."""


class Partitions:
    """Tells which partitions are unlike the others, by the loss of what was predicted when lists arrived.

    A partition is unlike the others when its mean loss exceeds 1.5 times the median of theirs, by more
    than 5 s / sqrt(n); sums fade with each list, so that n is at most 100.

    Parameters
    ----------
    partitions
        All there are; with one, there is nothing to compare.

    Examples
    --------
    >>> partitions, rng = Partitions([0, 1, 2]), np.random.default_rng(0)
    >>> where = np.tile([0, 1, 2], 50)
    >>> partitions.learn(where, rng.normal(0.4, 0.1, 150)); partitions.unlike
    frozenset()
    >>> partitions.learn(where, rng.normal(0.4, 0.1, 150) + (where == 1)); partitions.unlike
    frozenset({1})
    """

    def __init__(self, partitions: list[int]) -> None:
        # of each: lists, sum of their losses, sum of squares
        self._sums = {p: np.zeros(3) for p in partitions}
        self.unlike: frozenset[int] = frozenset()

    def sift(self, buffer: Buffer, numbers: Array, lists: Lists) -> Array:
        """Take in these lists of the buffer; which of them (bool) are of a partition unlike the others."""
        if len(self._sums) == 1:
            return np.zeros(len(numbers), np.bool_)
        partition = buffer.column("partition", numbers)
        loss = list_losses(lists.start, buffer.guesses(numbers).p, lists.labels, buffer.known(numbers))
        seen = ~buffer.column("unseen", numbers)
        self.learn(partition[seen], loss[seen])
        return self.out(partition)

    def out(self, partition: Array) -> Array:
        """Which of these (bool [n]) are unlike the others."""
        out: Array = np.isin(partition, list(self.unlike))
        return out

    def learn(self, partition: Array, loss: Array) -> None:
        """Take in the loss (float [n]) of some lists of these partitions (int [n])."""
        finite = np.isfinite(loss)
        for p, sums in self._sums.items():
            own = loss[finite & (partition == p)]
            sums *= (1 - 1 / MEMORY) ** len(own)
            sums += (len(own), own.sum(), np.square(own).sum())
        self.unlike = frozenset(p for p in self._sums if self._is_unlike(p))

    def state(self) -> dict[int, Array]:
        """Plain data for a checkpoint."""
        return {p: sums.copy() for p, sums in self._sums.items()}

    def load_state(self, state: dict[int, Array]) -> None:
        """Go on from `state`, as far as these partitions are in it."""
        for p, sums in self._sums.items():
            sums[:] = state.get(p, 0.0)
        self.learn(np.zeros(0, np.int64), np.zeros(0))

    def _is_unlike(self, p: int) -> bool:
        count, total, squares = self._sums[p]
        others = [s[1] / s[0] for q, s in self._sums.items() if q != p and s[0] >= ENOUGH]
        if count < ENOUGH or not others:
            return False
        mean, usual = total / count, float(np.median(others))
        error = np.sqrt(max(squares / count - mean**2, 0.0) / count)
        return bool(mean > RATIO * usual and mean - usual > ERRORS * error)
