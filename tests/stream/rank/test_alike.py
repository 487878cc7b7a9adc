"""Items of one kind, the promising first."""

from __future__ import annotations

import numpy as np

from models.batch import S
from models.statistics import CLICKS_SHORT, IMPRESSIONS_SHORT
from models.table import Table
from stream.ids import hash_id
from stream.messages import Item
from stream.rank.alike import group_alike
from stream.rank.catalogue import Catalogue
from stream.rank.known import Known
from stream.rank.models import Slot
from stream.settings import Settings, shape_of

NOW = 1_700_000_000_000


def _catalogue() -> Catalogue:
    catalogue = Catalogue(100, 4096)
    for name, category, brand in (
        ("a", "shoes", "acme"),
        ("b", "shoes", "acme"),
        ("c", "hats", "acme"),
        ("d", "hats", ""),
        ("e", "hats", ""),
        ("gone", "hats", ""),
    ):
        catalogue.put(Item(item_id=name, category=category, brand=brand), NOW)
    catalogue.retire("gone")
    return catalogue


def _known(**counts: tuple[float, float]) -> Known:
    """Impressions and clicks of some items."""
    table, stats = Table(16), np.zeros((16, S), np.float32)
    for row, (name, (impressions, clicks)) in enumerate(counts.items()):
        table.put(np.array([hash_id(name)], np.uint64), np.array([row]))
        stats[row, IMPRESSIONS_SHORT], stats[row, CLICKS_SHORT] = impressions, clicks
    nothing = Slot(shape_of(Settings())).known
    at = np.full(16, NOW, np.int64)
    return nothing._replace(keys=table.keys, rows=table.rows, stats=stats, stats_at=at)


def _kinds(catalogue: Catalogue, known: Known) -> dict[str, list[str]]:
    alike = group_alike(catalogue, known, NOW)
    listed = {}
    for name in ("a", "c", "d"):
        row = catalogue.row_of[hash_id(name)]
        listed[name] = [catalogue.names[i] for i in alike.items[alike.kind[row]].tolist() if i]
    return listed


def test_a_kind_is_a_brand_and_without_brand_a_category() -> None:
    kinds = _kinds(_catalogue(), _known())
    assert {name: set(items) for name, items in kinds.items()} == {
        "a": {"a", "b", "c"},
        "c": {"a", "b", "c"},
        "d": {"d", "e"},
    }


def test_promising_items_come_first_and_known_bad_ones_last() -> None:
    kinds = _kinds(_catalogue(), _known(a=(1000, 1), b=(1000, 200)))
    assert kinds["a"] == ["b", "c", "a"]


def test_an_empty_catalogue_has_no_kinds() -> None:
    assert len(group_alike(Catalogue(10, 4096), _known(), NOW).kind) == 0
