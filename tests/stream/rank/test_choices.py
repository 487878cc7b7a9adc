"""What explored places say of every arm's choice, against what the simulated shop knows."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from models.batch import Array
from models.table import Table
from stream.ids import hash_id
from stream.messages import CUBES, Cart, Click, Impression, Item, Slate, slate_decoder
from stream.rank.choices import UNIFORM
from stream.settings import THREE_ARMS, SlateSettings
from stream.shop.settings import ShopSettings
from stream.shop.visitors import Visitors, examination, sigmoid
from stream.shop.world import World
from tests.stream.rank.stage import SMALL, Stage, T

SIZE, TOP, ITEMS, VISITORS = 3, 4, 30, 2_000
EASY = 3.0
"""Logits that make these visitors click more than the shop's do, so that fewer of them tell."""

Sums = dict[str, dict[str, float]]


def exploring(path: Path, size: int = SIZE, explore: float = 1.0) -> Stage:
    slate = SlateSettings(size=size, candidates=2 * ITEMS, explore=explore, explore_top=TOP)
    return Stage(path, msgspec.structs.replace(SMALL, slate=slate, arms=THREE_ARMS))


def slates(stage: Stage, *events: Click) -> list[Slate]:
    outputs = [o for o in stage.feed(*events) if o.topic == "recommendations"]
    return [slate_decoder.decode(output.value or b"") for output in outputs]


def shown(slate: Slate, items: list[str] | None = None, trace: str | None = None) -> Impression:
    """The page that shows a slate, or these items of it."""
    ids = [item.item_id for item in slate.items] if items is None else items
    return Impression(
        user_id=slate.user_id, ts=T, items=ids, slate_id=slate.slate_id, trace=trace or slate.trace
    )


def sums(stage: Stage) -> Sums:
    """By policy."""
    columns, found = stage.counted("choices"), defaultdict(lambda: dict.fromkeys(CUBES["choices"].sums, 0.0))
    for i, policy in enumerate(columns.get("policy", [])):
        for name in CUBES["choices"].sums:
            found[policy][name] += columns[name][i]
    return found


@pytest.fixture
def shop(tmp_path: Path) -> Stage:
    stage = exploring(tmp_path)
    stage.items(*(Item(item_id=x, published_at=T - i) for i, x in enumerate("abcdefgh")))
    return stage


def one(stage: Stage) -> tuple[Slate, str]:
    """An explored slate, and the item at its explored place."""
    (slate,) = slates(stage, Click(user_id="u", ts=T, item_id="z"))
    (item,) = [item.item_id for item in slate.items if item.explored]
    return slate, item


def test_a_shown_place_and_its_click_weigh_by_how_likely_they_were(shop: Stage) -> None:
    slate, item = one(shop)
    trace = shop.rank.arms.read(slate.trace)
    assert trace is not None
    assert trace.explored is not None
    shop.feed(shown(slate), Click(user_id="u", ts=T, item_id=item, slate_id=slate.slate_id))
    found = sums(shop)
    odds = SIZE * TOP  # every slate is explored: 3 places, 4 items
    assert found[UNIFORM] == {
        "shown": 1, "matched": 1, "places": 3, "weight": 3, "squares": 9, "clicks": 3,
    }  # fmt: skip
    for code, arm in enumerate(THREE_ARMS):
        weight = odds * (trace.explored.chosen >> code & 1)
        assert found[arm.name] == {
            "shown": 1, "matched": weight > 0, "places": 3, "weight": weight, "squares": weight**2,
            "clicks": weight,
        }  # fmt: skip


def test_only_a_click_at_the_explored_place_counts(shop: Stage) -> None:
    slate, item = one(shop)
    others = [x.item_id for x in slate.items if x.item_id != item]
    acts = [Click(user_id="u", ts=T, item_id=x, slate_id=slate.slate_id) for x in others]
    shop.feed(shown(slate), *acts, Cart(user_id="u", ts=T, item_id=item, slate_id=slate.slate_id))
    assert sums(shop)[UNIFORM]["clicks"] == 0


def test_the_explored_place_is_where_the_page_shows_the_item(shop: Stage) -> None:
    slate, item = one(shop)
    page = ["elsewhere", *[x.item_id for x in slate.items if x.item_id != item], item]
    shop.feed(shown(slate, page), Click(user_id="u", ts=T, item_id=item, slate_id=slate.slate_id))
    assert sums(shop)[UNIFORM] == {
        "shown": 1, "matched": 1, "places": 3, "weight": 3, "squares": 9, "clicks": 3,
    }  # fmt: skip


def test_what_the_page_left_out_was_not_explored(shop: Stage) -> None:
    slate, item = one(shop)
    shop.feed(shown(slate, [x.item_id for x in slate.items if x.item_id != item]))
    assert sums(shop) == {}


def test_a_forged_trace_explores_nothing(shop: Stage) -> None:
    slate, _ = one(shop)
    shop.feed(shown(slate, trace=slate.trace[:-1] + ("0" if slate.trace[-1] != "0" else "1")))
    assert sums(shop) == {}


class Orders:
    """A model that scores items alike for everybody: by their row."""

    def __init__(self, score: Array) -> None:
        self._score = score

    def score(self, x: Array, row: Array, *rest: Array) -> tuple[Array, Array]:
        return self._score[row], np.zeros((len(x), 3), np.float32)


class Place(NamedTuple):
    """An explored place: whose slate, which slot, the pool, the visitor."""

    arm: str
    slot: int
    pool: list[int]
    visitor: int


class Simulation:
    """A world with visitors, three arms that rank it differently, and clicks as the shop would have them.

    Attributes
    ----------
    orders
        Items (places of the world) in the order of each arm.
    explored
        Every explored place that was shown.
    """

    def __init__(self, path: Path, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        settings = ShopSettings(items=ITEMS, visitors=VISITORS, seed=seed)
        self.world = World(settings, T, rng)
        visitors = Visitors(settings, self.world, rng)
        logits = visitors.logits(np.arange(VISITORS)) + EASY
        self.chance = sigmoid(logits)
        self.stage = exploring(path)
        self.stage.items(*map(self.world.item, range(ITEMS)))
        good = logits.mean(0)
        scores = {"fresh": good, "frozen": good + rng.normal(0, 2 * good.std(), ITEMS)}
        for name, score in scores.items():
            self._serve(name, score.astype(np.float32))
        newest = {x: i for i, x in enumerate(self.stage.rank.catalogue.newest(ITEMS).tolist())}
        popular = [newest[hash_id(x)] for x in self.world.ids]
        self.orders = {name: np.argsort(-score).tolist() for name, score in scores.items()}
        self.orders["popularity"] = np.argsort(popular).tolist()
        self.explored: list[Place] = []
        self._rng, self._examination = rng, examination(SIZE)

    def run(self) -> None:
        """Every visitor sees a page."""
        acts = [Click(user_id=f"u{v}", ts=T, item_id="nowhere") for v in range(VISITORS)]
        for k in range(0, VISITORS, 100):  # more at once would be a flood
            for visitor, slate in enumerate(slates(self.stage, *acts[k : k + 100]), k):
                self._look(visitor, slate)

    def truth(self, policy: str) -> float:
        """Expected clicks at the explored places, each filled by this policy."""
        return float(np.mean([self._value(place, policy) for place in self.explored]))

    def _serve(self, name: str, score: Array) -> None:
        slot, rows = self.stage.rank.slots[name], Table(64)
        rows.put(np.array([hash_id(x) for x in self.world.ids], np.uint64), np.arange(ITEMS))
        slot.served = Orders(score)  # type: ignore[assignment]
        slot.known = slot.known._replace(
            keys=rows.keys, rows=rows.rows, stats=np.zeros((64, 8), np.float32),
            stats_at=np.zeros(64, np.int64), first_seen=np.zeros(64, np.int64),
            near=np.zeros((64, 32), np.uint64), near_weight=np.zeros((64, 32), np.float32),
            near_at=np.zeros(64, np.int64),
        )  # fmt: skip

    def _look(self, visitor: int, slate: Slate) -> None:
        places = [self.world.ids.index(item.item_id) for item in slate.items]
        (slot,) = [i for i, item in enumerate(slate.items) if item.explored]
        own = self.orders[slate.arm]
        self.explored.append(Place(slate.arm, slot, [own[slot], *own[SIZE : SIZE + TOP - 1]], visitor))
        chances = self.chance[visitor, places] * self._examination
        clicked = np.flatnonzero(self._rng.random(SIZE) < chances)
        acts = [
            Click(user_id=slate.user_id, ts=T, item_id=slate.items[i].item_id, slate_id=slate.slate_id)
            for i in clicked.tolist()
        ]
        self.stage.feed(shown(slate), *acts)

    def _value(self, place: Place, policy: str) -> float:
        chance = self.chance[place.visitor] * self._examination[place.slot]
        if policy == UNIFORM:
            return float(chance[place.pool].mean())
        return float(chance[next(x for x in self.orders[policy] if x in place.pool)])


def test_the_estimates_are_near_the_truth_and_tell_good_choices_from_bad_ones(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    simulation.run()
    assert {place.arm for place in simulation.explored} == {"fresh", "frozen", "popularity"}
    found = sums(simulation.stage)
    truth = {policy: simulation.truth(policy) for policy in found}
    assert set(found) == {"fresh", "frozen", "popularity", UNIFORM}
    for policy, row in found.items():
        assert row["shown"] == len(simulation.explored) == VISITORS
        assert row["weight"] / row["places"] == pytest.approx(1.0, abs=0.1)
        effective = row["weight"] ** 2 / row["squares"]
        error = (truth[policy] / effective) ** 0.5
        for estimate in (row["clicks"] / row["weight"], row["clicks"] / row["places"]):
            assert abs(estimate - truth[policy]) < 3.5 * error
            assert error < 0.1 * truth[policy]
    assert truth["fresh"] > 1.15 * truth[UNIFORM]
    assert found["fresh"]["clicks"] / found["fresh"]["weight"] > 1.1 * truth[UNIFORM]
