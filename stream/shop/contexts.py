"""Where visitors of the simulated shop come from, and what is liked there.

Each country likes a few styles more than the others. Devices are told too, and mean nothing: what tells
nothing of tastes has to be learned as well.
"""

from __future__ import annotations

import numpy as np

from stream.shop.world import STYLES, Ints

COUNTRIES = ("at", "br", "de", "fr", "in", "jp")
DEVICES = ("desktop", "phone", "tablet")
LIKED = 3
"""Styles that are liked in a country."""


class Contexts:
    """The context of every visitor, by place.

    Parameters
    ----------
    visitors
        How many there are (V).
    weight
        Chance that an interest is one of the country's.
    rng
        Randomness of the contexts; nothing else uses it.

    Attributes
    ----------
    liked : int64 [countries, LIKED]
        Styles.
    country, device : int64 [V]
    """

    def __init__(self, visitors: int, weight: float, rng: np.random.Generator) -> None:
        self._weight, self._rng = weight, rng
        self.liked: Ints = rng.integers(0, STYLES, (len(COUNTRIES), LIKED))
        self.country: Ints = rng.integers(0, len(COUNTRIES), visitors)
        self.device: Ints = rng.integers(0, len(DEVICES), visitors)

    def replace(self, place: int) -> None:
        """Somebody new comes to a place."""
        self.country[place] = self._rng.integers(0, len(COUNTRIES))
        self.device[place] = self._rng.integers(0, len(DEVICES))

    def at_home(self, who: Ints, interests: Ints) -> Ints:
        """New interests (int64 [N, K]) of visitors, some of them replaced by those of their countries.

        >>> contexts = Contexts(2, 1.0, np.random.default_rng(0))
        >>> interests = contexts.at_home(np.array([0, 1]), np.zeros((2, 5), np.int64))
        >>> [set(one) <= set(contexts.liked[k]) for one, k in zip(interests, contexts.country)]
        [True, True]
        """
        liked = self.liked[self.country[who, None], self._rng.integers(0, LIKED, interests.shape)]
        return np.where(self._rng.random(interests.shape) < self._weight, liked, interests)

    def told(self, place: int) -> dict[str, str]:
        """The context of one visitor, as events have it."""
        return {"country": COUNTRIES[self.country[place]], "device": DEVICES[self.device[place]]}
