"""The visitors of the simulated shop: when they come, what they are after, what they are tired of.

Each has a few interests (styles), some of which may be those of the country. One of them dominates the
mood of the moment; within a session it may give way to another, and over minutes interests themselves are
replaced.

Shapes: V visitors, N of them at a time, K interests, I items, D latent dimensions, R places.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.shop.contexts import Contexts
from stream.shop.settings import ShopSettings
from stream.shop.world import STYLES, Floats, Ints, World

INTERESTS = 2
ASIDE = 0.3
"""Weight of an interest that does not dominate; the dominating one has 1."""
MOOD_S = 120.0
"""Mean seconds until another interest dominates."""
INTEREST_S = 300.0
"""Mean seconds until an interest is replaced by a new one."""
FOLLOW = 0.5
"""How much new interests follow fashion (1 / logit)."""
LEAVE = 0.1
"""Chance that a visitor does not come back after a session; somebody new comes instead."""
SHOWN, CLICKED, BOUGHT, DISMISSED = 0.1, 1.5, 6.0, 8.0
"""What tires of an item (logits) ..."""
FORGET_S = 120.0
"""... and how fast it is forgotten (s)."""
BOT_SPEED = 10.0
"""How many times faster than people bots turn pages; they also stay away that much longer."""


class Visitors:
    """Everybody who comes to the shop.

    Parameters
    ----------
    settings
        The shop's.
    world
        Where styles and their fashions are looked up.
    rng
        Randomness of the visitors.

    Attributes
    ----------
    ids : list of str
        Visitor of each place [V].
    sessions : int64 [V]
        Sessions so far.
    bot : bool [V]
    next_page : float64 [V]
        When each sees the next page, s since the start.
    contexts : Contexts
        Where they come from.
    sensitivity : float32 [V]
        To price.
    fatigue : float32 [V, I]
        Logits off, as of the visitor's newest page.
    """

    def __init__(self, settings: ShopSettings, world: World, rng: np.random.Generator) -> None:
        self._settings, self._world, self._rng = settings, world, rng
        n = settings.visitors
        self._made = n
        self.ids = [f"u{i:06d}" for i in range(n)]
        self.bot = rng.permutation(n) < round(settings.bots * n)
        self.sessions: Ints = np.ones(n, np.int64)
        self.sensitivity: Floats = np.abs(rng.normal(0, 0.8, n)).astype(np.float32)
        # older than the fashion of the moment: half as much in its favour as new ones
        self.interests: Ints = self._styles((n, INTERESTS), FOLLOW / 2)
        self.contexts = Contexts(n, settings.contexts, *rng.spawn(1))
        self.interests = self.contexts.at_home(np.arange(n), self.interests)
        self.dominating: Ints = rng.integers(0, INTERESTS, n)
        self.fatigue: Floats = np.zeros((n, settings.items), np.float32)
        self._seen = np.zeros(n)
        active = settings.session_pages * settings.dwell_s
        inside = rng.random(n) < active / (active + settings.gap_s)
        inside &= ~self.bot
        self.next_page = np.where(inside, rng.random(n) * settings.dwell_s, self._gaps(np.arange(n)))

    def due(self, t: float) -> Ints:
        """Who sees a page by time `t`, in the order of their times [N]."""
        places = np.flatnonzero(self.next_page <= t)
        return places[np.argsort(self.next_page[places], kind="stable")]

    def arrive(self, who: Ints, t: float) -> None:
        """Bring moods and fatigue of visitors up to time `t`."""
        rng, drift = self._rng, self._settings.drift
        away = np.maximum(t - self._seen[who], 0)
        moved = rng.random(len(who)) < -np.expm1(-drift * away / MOOD_S)
        other = rng.integers(0, INTERESTS, len(who))
        self.dominating[who] = np.where(moved, other, self.dominating[who])
        replaced = rng.random((len(who), INTERESTS)) < -np.expm1(-drift * away / INTEREST_S)[:, None]
        new = self.contexts.at_home(who, self._styles((len(who), INTERESTS)))
        self.interests[who] = np.where(replaced, new, self.interests[who])
        self.fatigue[who] *= np.exp(-away / FORGET_S).astype(np.float32)[:, None]
        self._seen[who] = t

    def mood(self, who: Ints) -> Floats:
        """What visitors are after now: a unit vector each [N, D]."""
        weights = np.full((len(who), INTERESTS, 1), ASIDE, np.float32)
        weights[np.arange(len(who)), self.dominating[who]] = 1.0
        mixed = (weights * self._world.centres[self.interests[who]]).sum(axis=1)
        unit: Floats = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
        return unit

    def logits(self, who: Ints) -> Floats:
        """Log-odds of a click on each item at the first place [N, I]."""
        return self._world.logits(self.mood(who), self.sensitivity[who]) - self.fatigue[who]

    def tire(self, who: int, item: int, logits: float) -> None:
        """Make one visitor want one item less."""
        self.fatigue[who, item] += logits

    def forget_items(self, items: list[int]) -> None:
        """Nobody is tired of the new items in these places."""
        self.fatigue[:, items] = 0

    def leave_page(self, who: Ints, t: float) -> None:
        """Decide when each comes next: another page, another session, or somebody new instead."""
        rng, s = self._rng, self._settings
        dwell = s.dwell_s * (0.3 + 0.7 * rng.exponential(size=len(who)))
        dwell[self.bot[who]] /= BOT_SPEED
        ends = rng.random(len(who)) < 1 / s.session_pages
        self.next_page[who] = t + dwell
        left = who[ends]
        self.next_page[left] += self._gaps(left)
        self.sessions[left] += 1
        gone = left[(rng.random(len(left)) < LEAVE * min(1.0, s.drift)) & ~self.bot[left]]
        for place in gone:
            self._replace(int(place))

    def _replace(self, place: int) -> None:
        self.ids[place] = f"u{self._made:06d}"
        self._made += 1
        self.sessions[place] = 1
        self.sensitivity[place] = abs(self._rng.normal(0, 0.8))
        self.contexts.replace(place)
        self.interests[place] = self.contexts.at_home(np.array([place]), self._styles((1, INTERESTS)))
        self.dominating[place] = self._rng.integers(0, INTERESTS)
        self.fatigue[place] = 0

    def _gaps(self, who: Ints) -> NDArray[np.float64]:
        mean = np.where(self.bot[who], BOT_SPEED, 1.0) * self._settings.gap_s
        return self._rng.exponential(size=len(who)) * mean

    def _styles(self, shape: tuple[int, ...], follow: float = FOLLOW) -> Ints:
        """Interests; what is in fashion finds more friends."""
        chance = np.exp(follow * self._world.fashion())
        return np.asarray(self._rng.choice(STYLES, shape, p=chance / chance.sum()), np.int64)


def examination(size: int) -> Floats:
    """Chance that a visitor looks at each place of a page, relative to the first [R].

    >>> examination(3).round(2).tolist()
    [1.0, 0.8700000047683716, 0.7699999809265137]
    """
    return (1 / (1 + 0.15 * np.arange(size))).astype(np.float32)


def best_pages(click: Floats, size: int) -> Ints:
    """Places of the `size` items with the highest click probability, best first [N, R].

    >>> best_pages(np.array([[0.1, 0.3, 0.2]], np.float32), 2).tolist()
    [[1, 2]]
    """
    top = np.argpartition(-click, size - 1, axis=1)[:, :size]
    order = np.argsort(-np.take_along_axis(click, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)


def sigmoid(logits: Floats) -> Floats:
    """Probability of each log-odds, safe for large ones."""
    odds: Floats = np.exp(np.clip(logits, -30, 30))
    return odds / (1 + odds)
