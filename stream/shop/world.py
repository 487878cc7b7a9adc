"""The truth of the simulated shop: what is on sale, and how attractive it is at each moment.

Items lie in a latent space: each belongs to a style, each style to a category. What attracts
everybody (fashion, novelty, quality) moves on its own; what attracts one visitor is how near an
item is to the visitor's mood (`visitors.py`). The logit of a click, before position and fatigue::

    BASE + AFFINITY * <mood, item> + quality + buzz + fashion + NOVELTY * exp(-age / FRESH_S)
         - sensitivity * (log price - mean of the category)

Shapes: I items, C categories, S styles, D latent dimensions, V visitors.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.messages import Item
from stream.shop.settings import ShopSettings

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

DIMENSIONS = 16
CATEGORIES = 12
STYLES_EACH = 4
STYLES = CATEGORIES * STYLES_EACH

BASE = -7.2
AFFINITY = 6.5
QUALITY = 0.5

FASHION, FASHION_S = 1.0, 100.0
"""Standard deviation (logits) and memory (s) of each style's appeal, an Ornstein-Uhlenbeck process."""
BUZZ, BUZZ_S = 0.6, 150.0
"""The same for each single item."""
WAVE, WAVE_S = 0.6, (120.0, 300.0)
"""Amplitude (logits) and range of periods (s) of each category's wave."""
SPIKE, SPIKE_S, SPIKES_PER_S = 1.5, 40.0, 1 / 15
"""A style goes viral: height (logits), decay (s), how often (1/s)."""
NOVELTY, FRESH_S = 1.4, 90.0
"""What being new adds (logits), and how fast it wears off (s)."""
BIRTHS_PER_S = 0.7
"""New items; they follow the fashion of the moment. Each takes the place of one that retires."""
PRICINGS_PER_S = 0.2
"""Items that get another price."""


class Changes(NamedTuple):
    """What happened to the catalogue: places that have a new item or a new price; items gone."""

    changed: list[int]
    retired: list[Item]


class World:
    """Everything on sale and its appeal over time; depends on the seed and the time alone.

    Parameters
    ----------
    settings
        The shop's.
    start_ms
        Wall clock at time 0, ms since the epoch.
    rng
        Randomness of the world; nothing that visitors do uses it.

    Attributes
    ----------
    ids : list of str
        Item of each place [I].
    centres : float32 [S, D]
        Latent centres of the styles, unit length.
    vectors : float32 [I, D]
        Latent vectors of the items, unit length.
    content : float32 [I, D]
        What the catalogue shows of them: a blurred `vectors`.
    style, brand : int64 [I]
    price, price_gap : float32 [I]
        Price, and log price minus the category's mean.
    appeal : float32 [I]
        The logit that is the same for everybody, at this moment.
    """

    def __init__(self, settings: ShopSettings, start_ms: int, rng: np.random.Generator) -> None:
        self._settings, self._start_ms, self._rng = settings, start_ms, rng
        self._clock = 0.0  # seconds of drift: time times `drift`
        self._made = 0
        n = settings.items
        centres = _units(rng.normal(size=(CATEGORIES, 1, DIMENSIONS)))
        offsets = _units(rng.normal(size=(CATEGORIES, STYLES_EACH, DIMENSIONS)))
        self.centres = _units(centres + 0.6 * offsets).reshape(STYLES, DIMENSIONS)
        self._mean_log_price = rng.uniform(1.5, 5.5, CATEGORIES)
        self._ou = rng.normal(0, FASHION, STYLES)
        self._spike = np.zeros(STYLES)
        self._period = rng.uniform(*WAVE_S, CATEGORIES)
        self._phase = rng.uniform(0, 2 * np.pi, CATEGORIES)
        self.ids = [""] * n
        self.style: Ints = np.zeros(n, np.int64)
        self.brand: Ints = np.zeros(n, np.int64)
        self.vectors: Floats = np.zeros((n, DIMENSIONS), np.float32)
        self.content: Floats = np.zeros((n, DIMENSIONS), np.float32)
        self.price: Floats = np.zeros(n, np.float32)
        self.price_gap: Floats = np.zeros(n, np.float32)
        self._quality = np.zeros(n)
        self._buzz = np.zeros(n)
        self._born = np.zeros(n)
        self._published = np.zeros(n, np.int64)
        ages = rng.exponential(n / BIRTHS_PER_S, n)
        self._make(np.arange(n), rng.integers(0, STYLES, n), -ages, start_ms - ages * 1000)
        self._buzz[:] = rng.normal(0, BUZZ, n)
        self.appeal = self._appeal()

    def advance(self, t: float) -> Changes:
        """Bring the world to time `t` (s since the start) in steps of a second of drift."""
        changed: list[int] = []
        retired: list[Item] = []
        while self._clock + 1 <= t * self._settings.drift + 1e-9:
            self._clock += 1
            self._move_fashions()
            places = self._rng.permutation(self._settings.items)[: self._rng.poisson(BIRTHS_PER_S)]
            retired += [self.item(int(place), available=False) for place in places]
            self._bear(places, self._clock / self._settings.drift)
            changed += [int(place) for place in places]
            changed += self._reprice()
            self.appeal = self._appeal()
        return Changes(changed, retired)

    def logits(self, mood: Floats, sensitivity: Floats) -> Floats:
        """Log-odds of a click on each item at the first place, to visitors who are not tired of it.

        Parameters
        ----------
        mood : float32 [V, D]
        sensitivity : float32 [V]
            To price.

        Returns
        -------
        float32 [V, I]
        """
        affinity: Floats = np.float32(AFFINITY) * (mood @ self.vectors.T)
        return affinity + self.appeal - sensitivity[:, None] * self.price_gap

    def fashion(self) -> NDArray[np.float64]:
        """Appeal of each style at this moment (logits) [S]."""
        wave = WAVE * np.sin(2 * np.pi * self._clock / self._period + self._phase)
        return self._ou + self._spike + np.repeat(wave, STYLES_EACH)

    def item(self, place: int, available: bool = True) -> Item:
        """The catalogue entry of one place."""
        category = int(self.style[place]) // STYLES_EACH
        return Item(
            item_id=self.ids[place],
            category=category_name(category),
            brand=f"brand-{category:02d}-{self.brand[place]}",
            price=round(float(self.price[place]), 2),
            title=f"{style_name(int(self.style[place]))} {self.ids[place]}",
            available=available,
            vector=[round(float(x), 4) for x in self.content[place]],
            published_at=int(self._published[place]),
        )

    def _appeal(self) -> Floats:
        novelty = NOVELTY * np.exp((self._born - self._clock) / FRESH_S)
        total = BASE + self._quality + self._buzz + self.fashion()[self.style] + novelty
        return np.asarray(total, np.float32)

    def _move_fashions(self) -> None:
        self._ou = _ou_step(self._ou, FASHION, FASHION_S, self._rng)
        self._buzz = _ou_step(self._buzz, BUZZ, BUZZ_S, self._rng)
        self._spike *= np.exp(-1 / SPIKE_S)
        hit = self._rng.integers(0, STYLES, self._rng.poisson(SPIKES_PER_S))
        np.add.at(self._spike, hit, SPIKE)

    def _bear(self, places: Ints, t: float) -> None:
        """New items, mostly of the styles in fashion."""
        chance = np.exp(self.fashion())
        styles = self._rng.choice(STYLES, len(places), p=chance / chance.sum())
        now = np.full(len(places), self._clock)
        self._make(places, styles, now, np.full(len(places), self._start_ms + t * 1000))

    def _make(
        self, places: Ints, styles: Ints, born: NDArray[np.float64], published: NDArray[np.float64]
    ) -> None:
        rng, n = self._rng, len(places)
        category = styles // STYLES_EACH
        for place in places:
            self.ids[place] = f"i{self._made:06d}"
            self._made += 1
        self.style[places] = styles
        # a brand makes mostly one style, which is how a ranker can see styles
        own = rng.random(n) < 0.8
        self.brand[places] = np.where(own, styles % STYLES_EACH, rng.integers(0, STYLES_EACH, n))
        noise = _units(rng.normal(size=(n, DIMENSIONS)))
        self.vectors[places] = _units(self.centres[styles] + 0.35 * noise)
        blur = _units(rng.normal(size=(n, DIMENSIONS)))
        self.content[places] = _units(self.vectors[places] + 0.35 * blur)
        self.price_gap[places] = rng.normal(0, 0.5, n)
        self.price[places] = np.round(np.exp(self._mean_log_price[category] + self.price_gap[places]), 2)
        self._quality[places] = rng.normal(0, QUALITY, n)
        self._buzz[places] = 0.0
        self._born[places] = born
        self._published[places] = published.astype(np.int64)

    def _reprice(self) -> list[int]:
        places = self._rng.integers(0, self._settings.items, self._rng.poisson(PRICINGS_PER_S))
        for place in places:
            factor = self._rng.uniform(0.7, 1.2)
            self.price[place] = max(0.01, round(float(self.price[place]) * factor, 2))
            self.price_gap[place] += np.log(factor)
        return [int(place) for place in places]


def category_name(category: int) -> str:
    """Name of a category.

    >>> category_name(7)
    'category-07'
    """
    return f"category-{category:02d}"


def style_name(style: int) -> str:
    """Name of a style: what a visitor would search for.

    >>> style_name(29)
    'category-07 style-1'
    """
    return f"{category_name(style // STYLES_EACH)} style-{style % STYLES_EACH}"


def _ou_step(
    x: NDArray[np.float64], deviation: float, memory_s: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """One second of an Ornstein-Uhlenbeck process around 0, exact in its stationary law."""
    keep = math.exp(-1 / memory_s)
    return keep * x + deviation * math.sqrt(1 - keep**2) * rng.normal(size=x.shape)


def _units(x: NDArray[np.floating]) -> Floats:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), np.float32)
