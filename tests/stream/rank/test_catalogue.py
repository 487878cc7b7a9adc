from __future__ import annotations

import numpy as np
import pytest

from stream.errors import Poison
from stream.ids import hash_id
from stream.messages import Item
from stream.rank.catalogue import Catalogue
from tests.stream.rank.stage import T


def _catalogue(*items: Item, limit: int = 1000) -> Catalogue:
    catalogue = Catalogue(limit, 16)
    for item in items:
        catalogue.put(item, T)
    return catalogue


def _row(catalogue: Catalogue, name: str) -> dict[str, float]:
    (row,) = catalogue.table.lookup(np.array([hash_id(name)], np.uint64))
    entry = catalogue.known().item[row]
    return {field: entry[field].item() for field in entry.dtype.names}


def _newest(catalogue: Catalogue, n: int) -> list[str | None]:
    return [catalogue.name(code) for code in catalogue.newest(n).tolist()]


def test_an_entry_is_replaced_whole_but_keeps_its_date() -> None:
    catalogue = _catalogue(Item(item_id="a", category="c", brand="b", price=5))
    catalogue.put(Item(item_id="a"), T + 99)
    assert _row(catalogue, "a") == {"published": T, "price": -1, "category": 0, "brand": 0, "available": 1}
    assert len(catalogue) == 1


def test_categories_and_brands_have_buckets_from_one() -> None:
    found = [_row(_catalogue(Item(item_id="a", category=f"c{i}", brand="b")), "a") for i in range(300)]
    assert {row["category"] for row in found} == set(range(1, 16))
    assert found[0]["brand"] > 0


def test_the_newest_are_available_and_newest_first() -> None:
    catalogue = _catalogue(*(Item(item_id=f"i{k}", published_at=T - k) for k in range(9)))
    assert _newest(catalogue, 3) == ["i0", "i1", "i2"]
    catalogue.put(Item(item_id="i0", published_at=T, available=False), T)
    catalogue.retire("i2")
    assert _newest(catalogue, 3) == ["i1", "i3", "i4"]
    assert len(_newest(catalogue, 99)) == 7
    catalogue.put(Item(item_id="new"), T + 1)
    assert _newest(catalogue, 1) == ["new"]


def test_among_equals_the_first_to_come_is_the_newest() -> None:
    catalogue = _catalogue(*(Item(item_id=f"i{k}", published_at=T) for k in range(9)))
    assert _newest(catalogue, 3) == ["i0", "i1", "i2"]


def test_a_retired_item_keeps_its_name_and_may_come_back() -> None:
    catalogue = _catalogue(Item(item_id="a"))
    catalogue.retire("a")
    catalogue.retire("never heard of")
    assert (_newest(catalogue, 1), catalogue.name(hash_id("a"))) == ([], "a")
    catalogue.put(Item(item_id="a"), T)
    assert _newest(catalogue, 1) == ["a"]


def test_a_full_catalogue_refuses_new_items_but_not_news_of_its_own() -> None:
    catalogue = _catalogue(Item(item_id="a"), Item(item_id="b"), limit=2)
    with pytest.raises(Poison, match=r"full \(2 items\)"):
        catalogue.put(Item(item_id="c"), T)
    catalogue.put(Item(item_id="b", price=3), T)
    assert _row(catalogue, "b")["price"] == 3


def test_a_full_catalogue_gives_the_place_of_what_was_retired_first() -> None:
    catalogue = _catalogue(*(Item(item_id=x) for x in "abc"), limit=3)
    for name in "bac":
        catalogue.retire(name)
    catalogue.put(Item(item_id="a"), T)
    catalogue.put(Item(item_id="d", category="x"), T)
    assert (catalogue.name(hash_id("b")), catalogue.name(hash_id("d"))) == (None, "d")
    assert sorted(map(str, _newest(catalogue, 9))) == ["a", "d"]
    assert len(catalogue) == 3


def test_it_grows_without_losing_anything() -> None:
    catalogue = _catalogue(*(Item(item_id=f"i{k}", price=k) for k in range(3000)), limit=5000)
    assert [_row(catalogue, f"i{k}")["price"] for k in (0, 1023, 1024, 2999)] == [0, 1023, 1024, 2999]


@pytest.mark.parametrize("ts", [5, 10**30, 10**18])
def test_an_impossible_date_is_refused(ts: int) -> None:
    catalogue = _catalogue()
    with pytest.raises(Poison, match="milliseconds"):
        catalogue.put(Item(item_id="a", published_at=ts), T)
    assert len(catalogue) == 0
