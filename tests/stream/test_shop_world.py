"""The truth of the simulated shop: what moves, what can be learned, and what it is worth."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from stream.shop.settings import ShopSettings
from stream.shop.visitors import SHOWN, Visitors, best_pages, examination, sigmoid
from stream.shop.world import AFFINITY, Floats, World

START = 1_700_000_000_000


def make(settings: ShopSettings) -> tuple[World, Visitors]:
    ours, visitors = (np.random.default_rng(s) for s in np.random.SeedSequence(settings.seed).spawn(2))
    world = World(settings, START, ours)
    return world, Visitors(settings, world, visitors)


def test_without_drift_nothing_changes() -> None:
    world, visitors = make(ShopSettings(drift=0.0, bots=0.0))
    before = (list(world.ids), world.appeal.copy(), visitors.mood(np.arange(3000)))
    changes = world.advance(600.0)
    visitors.arrive(np.arange(3000), 600.0)
    visitors.leave_page(np.arange(3000), 600.0)
    assert changes.changed == []
    assert world.ids == before[0]
    assert (world.appeal == before[1]).all()
    assert (visitors.mood(np.arange(3000)) == before[2]).all()
    assert visitors.ids[-1] == "u002999"


def test_world_does_not_depend_on_how_often_it_is_asked() -> None:
    often, _ = make(ShopSettings())
    once, _ = make(ShopSettings())
    for tick in range(1, 601):
        often.advance(tick * 0.05)
    once.advance(30.0)
    assert often.ids == once.ids
    assert (often.appeal == once.appeal).all()


def test_twice_the_drift_is_twice_the_speed() -> None:
    slow, _ = make(ShopSettings())
    quick, _ = make(ShopSettings(drift=2.0))
    slow.advance(60.0)
    quick.advance(30.0)
    assert (slow.appeal == quick.appeal).all()


def test_births_keep_the_size_and_say_so() -> None:
    world, _ = make(ShopSettings(items=300))
    first = set(world.ids)
    retired = {item.item_id for second in range(1, 61) for item in world.advance(float(second)).retired}
    assert retired
    assert retired.isdisjoint(world.ids)
    assert len(set(world.ids)) == 300
    born = set(world.ids) - first
    assert all(world.item(world.ids.index(item)).published_at > START for item in born)  # type: ignore[operator]


def test_items_of_a_style_are_neighbours() -> None:
    world, _ = make(ShopSettings())
    near = world.content @ world.content.T
    same = world.style[:, None] == world.style[None, :]
    assert near[same].mean() > near[~same].mean() + 0.5


def test_tired_of_what_was_shown_and_over_it_later() -> None:
    _, visitors = make(ShopSettings(drift=0.0))
    who = np.array([5])
    visitors.arrive(who, 0.0)
    fresh = visitors.logits(who)[0, 7]
    visitors.tire(5, 7, SHOWN)
    assert visitors.logits(who)[0, 7] == pytest.approx(fresh - SHOWN, abs=1e-5)
    visitors.arrive(who, 1e4)
    assert visitors.logits(who)[0, 7] == pytest.approx(fresh, abs=1e-5)


def test_newcomers_replace_who_leaves() -> None:
    _, visitors = make(ShopSettings(bots=0.0))
    everybody = np.arange(3000)
    for t in range(60):
        visitors.leave_page(everybody, float(t))
    assert len(set(visitors.ids)) == 3000
    assert max(visitors.ids) > "u003000"


def at_home(visitors: Visitors) -> float:
    """Share of the interests that are among those of the country."""
    liked = visitors.contexts.liked[visitors.contexts.country]
    return float((visitors.interests[:, :, None] == liked[:, None]).any(axis=2).mean())


def test_some_interests_are_those_of_the_country_and_newcomers_may_be_from_another() -> None:
    by_chance, half, all_ = (make(ShopSettings(contexts=weight))[1] for weight in (0.0, 0.5, 1.0))
    assert at_home(by_chance) < 0.15
    assert at_home(half) == pytest.approx(0.5 + 0.5 * at_home(by_chance), abs=0.05)
    assert at_home(all_) == 1.0
    before = half.ids.copy(), half.contexts.country.copy()
    for t in range(60):
        half.leave_page(np.arange(3000), float(t))
    half.arrive(np.arange(3000), 1000.0)
    new = np.array(half.ids) != np.array(before[0])
    assert new.sum() > 500
    assert (half.contexts.country == before[1])[~new].all()
    assert (half.contexts.country == before[1])[new].mean() < 0.3
    assert at_home(half) == pytest.approx(0.5 + 0.5 * at_home(by_chance), abs=0.05)


def test_contexts_change_interests_alone() -> None:
    (_, without), (_, with_) = (make(ShopSettings(contexts=weight)) for weight in (0.0, 1.0))
    for t in range(20):
        for visitors in (without, with_):
            visitors.leave_page(np.arange(3000), float(t))
    assert (without.ids, without.next_page.tolist()) == (with_.ids, with_.next_page.tolist())
    assert (without.sensitivity == with_.sensitivity).all()
    assert (without.interests != with_.interests).any()


def test_best_pages_agree_with_a_full_sort() -> None:
    click = np.random.default_rng(1).random((20, 100)).astype(np.float32)
    assert (best_pages(click, 10) == np.argsort(-click, axis=1)[:, :10]).all()


def test_sigmoid_survives_extremes() -> None:
    assert sigmoid(np.array([-1e6, 0.0, 1e6], np.float32)).tolist() == pytest.approx(
        [0.0, 0.5, 1.0], abs=1e-6
    )


def policies(minutes: int, settings: ShopSettings) -> dict[str, dict[int, float]]:
    """Mean expected CTR per minute of rankings that know the truth, or an old or partial truth."""
    world, visitors = make(settings)
    look, rng = examination(settings.page_size), np.random.default_rng(2)
    ctr: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    old_mood: Floats | None = None
    for second in range(1, minutes * 60 + 1):
        visitors.forget_items(world.advance(float(second)).changed)
        who = visitors.due(float(second))
        visitors.arrive(who, float(second))
        click = sigmoid(visitors.logits(who))
        if second == 60:
            old_mood = visitors.mood(np.arange(settings.visitors))
            old_appeal, old_vectors, old_ids = world.appeal.copy(), world.vectors.copy(), list(world.ids)
        some = np.arange(0, settings.visitors, 8)
        average = sigmoid(world.logits(visitors.mood(some), visitors.sensitivity[some])).mean(axis=0)
        pages = {
            "best": best_pages(click, settings.page_size),
            "popularity": best_pages(np.tile(average, (len(who), 1)), settings.page_size),
            "random": rng.integers(0, settings.items, (len(who), settings.page_size)),
        }
        if old_mood is not None:
            same = np.array([a == b for a, b in zip(old_ids, world.ids, strict=True)])
            for name, mood in (("frozen", old_mood[who]), ("frozen model", visitors.mood(who))):
                score = AFFINITY * (mood @ old_vectors.T) + old_appeal - visitors.fatigue[who]
                pages[name] = best_pages(np.where(same, score, -np.inf), settings.page_size)
        for name, page in pages.items():
            expected = np.take_along_axis(click, page, axis=1) * look
            ctr[name][(second - 1) // 60 + 1].append(float(expected.mean()))
        visitors.fatigue[who[:, None], pages["best"]] += SHOWN
        visitors.leave_page(who, float(second))
    return {name: {m: float(np.mean(x)) for m, x in by.items()} for name, by in ctr.items()}


def worth(settings: ShopSettings, minutes: int) -> None:
    ctr = policies(minutes, settings)
    for name, by in ctr.items():
        print(name, {m: round(x, 3) for m, x in by.items()})
    late = {name: np.mean([x for m, x in by.items() if m > 1]) for name, by in ctr.items()}
    assert late["best"] > 0.15
    assert late["random"] < 0.1 * late["best"]
    assert late["popularity"] < 0.5 * late["best"]
    assert late["frozen"] < 0.75 * late["best"]
    assert late["frozen model"] < 0.75 * late["best"]
    assert ctr["frozen model"][minutes] < ctr["frozen model"][2]


def test_knowing_the_visitor_and_the_moment_is_worth_much() -> None:
    worth(ShopSettings(visitors=800, pages_per_s=20.0, bots=0.0), minutes=4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_knowing_the_visitor_and_the_moment_is_worth_much_at_full_size(seed: int) -> None:
    worth(ShopSettings(seed=seed, bots=0.0), minutes=5)
