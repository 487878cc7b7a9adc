from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.batch import Shape
from models.covisitation import scratch
from models.table import Table
from stream.ids import hash_id
from stream.messages import Item
from stream.rank.alike import NOTHING, Alike, group_alike
from stream.rank.candidates import SOURCES, find_candidates
from stream.rank.catalogue import Catalogue
from stream.rank.known import Known
from stream.rank.models import unknowing
from stream.rank.visitors import BOUGHT, DISMISSED, ENTRY, IN_CART
from tests.stream.rank.stage import T

SHAPE = Shape(rows=64, cold=4, categories=16, history=8, neighbours=4)


class Scene:
    """What one visitor could be offered; items are named by their letters."""

    def __init__(self) -> None:
        self.catalogue = Catalogue(1000, 16)
        self.own: list[tuple[str, int]] = []
        self.near: dict[str, dict[str, float]] = {}
        self.trending = self.newest = ""
        self.alike: Alike = NOTHING
        self.offer("abcdefghijklmnopqrstuvwxyz")

    def offer(self, names: str, **fields: Any) -> None:
        for name in names:
            self.catalogue.put(Item(item_id=name, **fields), T)

    def find(
        self, limit: int = 24, *, personal: bool = True, exclude_bought: bool = True
    ) -> list[tuple[str, str]]:
        own = np.zeros(SHAPE.history, ENTRY)
        for entry, (name, flags) in zip(own, self.own, strict=False):
            entry["item"], entry["ts"], entry["flags"] = hash_id(name), T, flags
        out, source = np.zeros(limit, np.uint64), np.zeros(limit, np.uint8)
        n = find_candidates(
            out, source, own, T, personal, _codes(self.trending), _codes(self.newest), self.alike,
            self.known(), self.catalogue.known(), exclude_bought, scratch(SHAPE.history, SHAPE.neighbours),
        )  # fmt: skip
        names = {hash_id(chr(i)): chr(i) for i in range(65, 123)}
        return [(names[i], SOURCES[s]) for i, s in zip(out[:n].tolist(), source[:n], strict=True)]

    def known(self) -> Known:
        table = Table(SHAPE.rows)
        known = unknowing(SHAPE)
        near, weight = np.zeros((64, 4), np.uint64), np.zeros((64, 4), np.float32)
        table.put(_codes("".join(self.near)), np.arange(len(self.near)))
        for row, neighbours in enumerate(self.near.values()):
            near[row, : len(neighbours)] = _codes("".join(neighbours))
            weight[row, : len(neighbours)] = list(neighbours.values())
        return known._replace(
            keys=table.keys, rows=table.rows, near=near, near_weight=weight,
            near_next=np.zeros((64, 4), np.uint8), near_often=np.zeros((64, 4), np.uint8),
            near_at=np.full(64, T), stats=np.zeros((64, 8), np.float32), stats_at=np.full(64, T),
        )  # fmt: skip


def _codes(names: str) -> np.ndarray:
    return np.array([hash_id(name) for name in names], np.uint64)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_the_cart_comes_first_then_what_was_touched(scene: Scene) -> None:
    scene.own = [("a", 0), ("b", IN_CART), ("c", 0)]
    assert scene.find() == [("b", "cart"), ("a", "recent"), ("c", "recent")]


def test_neighbours_of_the_history_are_offered_heaviest_first(scene: Scene) -> None:
    scene.own = [("a", 0), ("b", 0)]
    scene.near = {"a": {"x": 0.5, "y": 0.3}, "b": {"y": 0.4, "z": 0.1}}
    assert scene.find()[2:] == [("y", "near"), ("x", "near"), ("z", "near")]


def test_neighbours_of_what_was_dismissed_are_not_offered(scene: Scene) -> None:
    scene.own = [("a", DISMISSED)]
    scene.near = {"a": {"x": 0.5}}
    assert scene.find() == []


def test_items_of_the_kinds_of_the_history_are_offered_in_turn(scene: Scene) -> None:
    scene.offer("abc", category="one")
    scene.offer("def", category="two")
    scene.own = [("a", 0), ("d", 0)]
    scene.alike = group_alike(scene.catalogue, scene.known(), T)
    found = [name for name, source in scene.find() if source == "alike"]
    assert len(found) == 4
    assert {found[0], found[2]} == {"b", "c"}
    assert {found[1], found[3]} == {"e", "f"}


def test_places_are_kept_for_trending_and_new_items(scene: Scene) -> None:
    scene.own = [(name, 0) for name in "ab"]
    scene.near = {name: dict.fromkeys("cdef" if name == "a" else "ghij", 1.0) for name in "ab"}
    scene.trending, scene.newest = "klmno", "pqrst"
    found = scene.find(8)
    assert [source for _, source in found].count("new") == 1
    assert [source for _, source in found].count("trending") >= 2
    assert len(found) == 8


def test_places_that_nobody_takes_go_to_trending_and_new_items(scene: Scene) -> None:
    scene.trending, scene.newest = "abcdef", "ghijkl"
    found = scene.find(8)
    assert found == [(name, "trending") for name in "abcdef"] + [("g", "new"), ("h", "new")]


def test_an_item_is_offered_once_by_its_first_source(scene: Scene) -> None:
    scene.own, scene.trending, scene.newest = [("a", 0)], "ab", "bac"
    assert scene.find() == [("a", "recent"), ("b", "trending"), ("c", "new")]


def test_what_is_not_available_is_never_offered(scene: Scene) -> None:
    scene.own, scene.trending, scene.newest = [("a", IN_CART), ("b", 0)], "c", "d"
    scene.near = {"b": {"e": 1.0}}
    scene.offer("abcde", available=False)
    assert scene.find() == []


def test_what_was_dismissed_is_never_offered(scene: Scene) -> None:
    scene.own, scene.trending, scene.newest = [("a", DISMISSED), ("b", DISMISSED | IN_CART)], "a", "ab"
    assert scene.find() == []
    assert scene.find(exclude_bought=False) == []


def test_what_was_bought_is_offered_only_where_settings_allow_it(scene: Scene) -> None:
    scene.own = [("a", BOUGHT)]
    assert scene.find() == []
    assert scene.find(exclude_bought=False) == [("a", "recent")]


def test_an_item_whose_name_nobody_knows_is_not_offered(scene: Scene) -> None:
    scene.own, scene.trending = [("A", 0), ("B", 0)], "AB"
    scene.near = {"B": {}}
    assert scene.find() == [("B", "recent")]


def test_popularity_offers_only_what_it_would_offer_anybody(scene: Scene) -> None:
    scene.own, scene.trending, scene.newest = [("a", IN_CART), ("b", DISMISSED)], "abc", "d"
    scene.near = {"a": {"x": 1.0}}
    found = scene.find(personal=False)
    assert [source for _, source in found] == ["trending", "trending", "new"]


def test_there_may_be_nothing_to_offer(scene: Scene) -> None:
    assert scene.find() == []


def test_more_than_there_is_room_for(scene: Scene) -> None:
    scene.own = [(name, 0) for name in "abcdefgh"]
    assert len(scene.find(5)) == 5
