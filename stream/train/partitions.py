"""Partitions are alike: visitors are dealt to them by a hash. One that is not brings something broken.

A world that changes changes everywhere; what one partition alone says (labels of a broken producer, a
crowd of bots) is kept out of training until that partition is like the others again.
"""

from __future__ import annotations

import numpy as np

from models.batch import Array, Lists, per_list
from models.quality import list_losses
from stream.train.buffer import Buffer

MEMORY = 100
"""Lists of each kind that a partition is judged by: few, so that it is soon forgiven."""

RATIO = 4 / 3
"""How many times the others' loss a partition's may be."""

STAKE = 0.9
"""Share of all that a bet has won by now that is put on the next list."""

MOST = 2.0
"""No list counts for more than so many times that: one bot, or two, do not speak for a partition."""

CHANCE = float(np.log(1e6))
"""Nats that must be won: where a partition is no worse that happens once in 10^6 lists, or less often."""

ENOUGH = MEMORY / 4
"""Lists of a partition before others are compared with it."""


class Partitions:
    """Tells which partitions are unlike the others, by the loss of what was predicted when lists arrived.

    Who bets on a partition's loss l being more than 4/3 times the others' has 0.1 + 0.9 min(3 l / 4 u, 2)
    times as much after a list as before it; u is the median over the other partitions of their mean loss. The
    partition is unlike them when

    max over k <= 100 of the product of these factors of its newest k lists  >  10^6

    Where lists are no worse, factors are 1 or less on average, however skewed losses are: so much is won once
    in 10^6 lists, or less often, at however many looks (e-detectors: Shin et al., doi 10.51387/23-NEJSDS51).

    Lists with a label are compared with such lists only, and those without with their like: the former's loss
    is several times the latter's, and a label makes a list ready at once while the others wait. After a pause
    of a few seconds they come in long runs. Those of all partitions must come in the order of their time, for
    two models may say of the same lists that twice as much is clicked: then the newest were predicted alike.

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
        # of each: losses of the newest lists without a label, and of those with one
        self._recent = {p: [np.zeros(0), np.zeros(0)] for p in partitions}
        self.unlike: frozenset[int] = frozenset()

    def sift(self, buffer: Buffer, numbers: Array, lists: Lists) -> Array:
        """Take in these lists of the buffer; which of them (bool) are of a partition unlike the others."""
        if len(self._recent) == 1:
            return np.zeros(len(numbers), np.bool_)
        partition = buffer.column("partition", numbers)
        loss = list_losses(lists.start, buffer.guesses(numbers).p, lists.labels, buffer.known(numbers))
        seen = ~buffer.column("unseen", numbers)
        labelled = per_list(lists.start, lists.labels > 0) > 0
        self.learn(partition[seen], loss[seen], labelled[seen])
        return self.out(partition)

    def out(self, partition: Array) -> Array:
        """Which of these (bool [n]) are unlike the others."""
        out: Array = np.isin(partition, list(self.unlike))
        return out

    def learn(self, partition: Array, loss: Array, labelled: Array | bool = False) -> None:
        """Take in the loss (float [n]) of lists of these partitions (int [n]), with a label or not (bool)."""
        finite = np.isfinite(loss)
        for p, kinds in self._recent.items():
            for kind, recent in enumerate(kinds):
                own = loss[finite & (partition == p) & (labelled == kind)]
                kinds[kind] = np.append(recent, own)[-MEMORY:]
        self.unlike = frozenset(p for p in self._recent if max(self._won(p, 0), self._won(p, 1)) > CHANCE)

    def state(self) -> dict[int, list[Array]]:
        """Plain data for a checkpoint."""
        return {p: list(kinds) for p, kinds in self._recent.items()}

    def load_state(self, state: dict[int, list[Array]]) -> None:
        """Go on from `state`, as far as these partitions are in it."""
        self._recent |= {p: list(kinds) for p, kinds in state.items() if p in self._recent}
        self.learn(np.zeros(0, np.int64), np.zeros(0))

    def _won(self, p: int, kind: int) -> float:
        """Nats that a bet against the lists of one kind has won."""
        own = self._recent[p][kind]
        others = [
            kinds[kind].mean() for q, kinds in self._recent.items() if q != p and len(kinds[kind]) >= ENOUGH
        ]
        if not others:
            return 0.0
        worse = np.clip(own / (RATIO * np.median(others)), 0.0, MOST)
        return float(np.cumsum(np.log1p(STAKE * (worse - 1))[::-1]).max(initial=0.0))
