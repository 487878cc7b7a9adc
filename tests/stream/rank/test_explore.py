"""What is explored, how often, and that a slate says so."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.batch import Array
from stream.ids import hash_id
from stream.log import Output
from stream.messages import Click, Item, Search, Slate, slate_decoder
from stream.rank.arms import ITEM_SHIFT, Explored
from stream.rank.explore import Draw, Explorer
from stream.rank.publish import FLOOD
from stream.settings import THREE_ARMS, Arm, Settings, SlateSettings
from tests.stream.rank.stage import SMALL, Stage, T

ALWAYS = SlateSettings(size=3, candidates=16, explore=1.0, explore_top=4)
OFFSETS = 20_000


def explorer(**slate: float) -> Explorer:
    return Explorer(Settings(slate=msgspec.structs.replace(ALWAYS, **slate)))


def draws(explorer: Explorer, ranked: int = 100) -> list[Draw]:
    found = [explorer.draw(0, 1, offset, ranked) for offset in range(OFFSETS)]
    return [draw for draw in found if draw is not None]


def near(counts: Counter[int], total: int) -> bool:
    """Whether counts are as uniform as chance would have them, within 5 standard deviations."""
    share = 1 / len(counts)
    return all(abs(n - total * share) < 5 * (total * share * (1 - share)) ** 0.5 for n in counts.values())


def test_one_slate_in_so_many_is_explored() -> None:
    assert len(draws(explorer(explore=0.05))) == pytest.approx(OFFSETS * 0.05, rel=0.15)


def test_every_place_and_every_item_of_the_pool_is_as_likely() -> None:
    found = draws(explorer())
    assert {tuple(draw.pool.tolist()) for draw in found} == {(slot, 3, 4, 5) for slot in range(3)}
    for counts in (
        Counter(draw.slot for draw in found),
        Counter(draw.pool.tolist().index(draw.rank) for draw in found),
    ):
        assert len(counts) in (3, 4)
        assert near(counts, len(found))
    assert near(Counter(100 * draw.slot + draw.pool.tolist().index(draw.rank) for draw in found), len(found))


def test_the_odds_are_how_often_it_happens() -> None:
    found = draws(explorer(explore=0.25))
    assert {draw.odds for draw in found} == {3 * 4 * 4}
    happened = Counter((draw.slot, draw.rank) for draw in found)
    assert len(happened) == 12
    assert all(n == pytest.approx(OFFSETS / 48, rel=0.25) for n in happened.values())


def test_it_depends_on_seed_and_position_alone() -> None:
    def chosen(partition: int = 1, **slate: float) -> list[tuple[int, int]]:
        one = explorer(**slate)
        return [(d.slot, d.rank) for o in range(50) if (d := one.draw(0, partition, o, 9))]

    assert chosen() == chosen()
    assert chosen() != chosen(seed=1)
    assert chosen() != chosen(partition=2)


@pytest.mark.parametrize(("ranked", "pools"), [(0, set()), (3, set()), (4, {2}), (5, {3}), (50, {4})])
def test_where_the_ranking_ends_there_is_less_to_draw_from_or_nothing(ranked: int, pools: set[int]) -> None:
    assert {len(draw.pool) for draw in draws(explorer(), ranked)} == pools


def test_an_arm_may_explore_as_it_likes_and_strangers_share_one_slate() -> None:
    arms = (
        Arm(name="a", share=0.5, model="fresh", explore=0.0),
        Arm(name="b", share=0.5, model="fresh"),
    )
    assert Explorer(Settings(arms=arms, slate=SlateSettings(explore=0.3))).epsilon == [0.0, 0.3, 0.0]
    assert Explorer(Settings(arms=arms)).draw(0, 0, 0, 100) is None


def shop(path: Path, slate: SlateSettings = ALWAYS, arms: tuple[Arm, ...] = SMALL.arms) -> Stage:
    stage = Stage(path, msgspec.structs.replace(SMALL, slate=slate, arms=arms))
    stage.items(*(Item(item_id=x, published_at=T - i) for i, x in enumerate("abcdefgh")))
    return stage


def slates(outputs: list[Output]) -> list[Slate]:
    return [slate_decoder.decode(o.value or b"") for o in outputs if o.topic == "recommendations"]


def click(user: str, item: str = "z") -> Click:
    return Click(user_id=user, ts=T, item_id=item)


def test_an_explored_slate_is_the_ranking_but_for_one_place_and_says_so(tmp_path: Path) -> None:
    stage = shop(tmp_path)
    names = {hash_id(x) >> ITEM_SHIFT: x for x in "abcdefgh"}
    drawn = Counter()
    for slate in slates(stage.feed(*(click(f"u{i}") for i in range(200)))):
        (slot,) = [i for i, item in enumerate(slate.items) if item.explored]
        shown = [item.item_id for item in slate.items]
        assert shown[:slot] + shown[slot + 1 :] == [x for i, x in enumerate("abc") if i != slot]
        assert shown[slot] in {"abc"[slot], "d", "e", "f"}
        trace = stage.rank.arms.read(slate.trace)
        assert trace is not None
        assert trace.explored is not None
        own = shown[slot] == "abc"[slot]
        assert trace.explored._replace(item=0) == Explored(0, pool=4, odds=12, chosen=int(own))
        assert names[trace.explored.item] == shown[slot]
        drawn[shown[slot] in "abc"] += 1
    assert drawn[True] == pytest.approx(50, abs=25)


def test_only_what_is_explored_is_marked(tmp_path: Path) -> None:
    (output,) = [o for o in shop(tmp_path).feed(click("u")) if o.topic == "recommendations"]
    marks = [item.get("explored") for item in json.loads(output.value or b"")["items"]]
    assert sorted(marks, key=str) == [None, None, True]


def test_a_replay_gives_the_same_slates(tmp_path: Path) -> None:
    events = [click(f"u{i}") for i in range(40)]
    whole = slates(shop(tmp_path / "a").feed(*events))
    apart = shop(tmp_path / "b")
    assert [slate for event in events for slate in slates(apart.feed(event))] == whole


def test_a_list_has_not_changed_because_another_place_would_be_explored(tmp_path: Path) -> None:
    stage = shop(tmp_path)
    search = Search(user_id="u", ts=T, query="x")
    assert [len(slates(stage.feed(search))) for _ in range(6)] == [1, 0, 0, 0, 0, 0]


def test_strangers_and_a_shop_with_too_few_items_get_what_is_best(tmp_path: Path) -> None:
    (strangers,) = slates(shop(tmp_path / "a").rank.tick(T / 1000))
    few = Stage(tmp_path / "b", msgspec.structs.replace(SMALL, slate=ALWAYS))
    few.items(*(Item(item_id=x) for x in "abc"))
    for slate in (strangers, *slates(few.feed(click("u")))):
        assert not any(item.explored for item in slate.items)


class Likes:
    """A model that likes items in this order; candidates come as the catalogue lists them."""

    def __init__(self, best: str) -> None:
        self.rank = {x: -best.index(x) for x in "abcdefgh"}

    def score(self, x: Array, *rest: Array) -> tuple[Array, Array]:
        users = len(x) // 8
        score = np.array([self.rank[x] for x in "abcdefgh"] * users, np.float32)
        return score, np.zeros((len(x), 3), np.float32)


def test_each_arm_is_asked_what_it_would_have_chosen(tmp_path: Path) -> None:
    stage = shop(tmp_path, arms=THREE_ARMS)
    stage.rank.slots["fresh"].served = Likes("hgfedcba")  # type: ignore[assignment]
    stage.rank.slots["frozen"].served = Likes("deabcfgh")  # type: ignore[assignment]
    order = {"fresh": "hgfedcba", "frozen": "deabcfgh", "popularity": "abcdefgh"}
    seen = set()
    for slate in slates(stage.feed(*(click(f"u{i}") for i in range(FLOOD - 1)))):
        (slot,) = [i for i, item in enumerate(slate.items) if item.explored]
        own, shown = order[slate.arm], slate.items[slot].item_id
        pool = [own[slot], *own[3:6]]
        best = {arm: next(x for x in ranking if x in pool) for arm, ranking in order.items()}
        trace = stage.rank.arms.read(slate.trace)
        assert trace is not None
        assert trace.explored is not None
        names = [arm.name for i, arm in enumerate(THREE_ARMS) if trace.explored.chosen >> i & 1]
        assert names == [arm for arm in order if best[arm] == shown]
        seen.add((slate.arm, *names))
    assert len(seen) > 8
