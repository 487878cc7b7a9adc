"""Items of one kind (brand, else category), the promising ones first: a candidate source.

Promising is an upper bound of the click rate: what is not known yet may be good,

    rate + sqrt(rate / (impressions + `PSEUDO`)),

with the smoothed rate of the short half-life; among equals, what is touched more comes first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.batch import Array
from models.statistics import CLICKS_SHORT, IMPRESSIONS_SHORT, PSEUDO, TOUCHES_SHORT
from models.table import lookup
from stream.rank.catalogue import BRANDS, Catalogue
from stream.rank.known import Known

KEPT = 32
"""Items kept of each kind."""


class Alike(NamedTuple):
    """Kinds of items; A catalogue entries, G kinds."""

    kind: Array  # int32 [A]: row of `items`
    items: Array  # uint64 [G, KEPT], most promising first, 0 where there are fewer


NOTHING = Alike(np.zeros(0, np.int32), np.zeros((1, KEPT), np.uint64))


def group_alike(catalogue: Catalogue, known: Known, now_ms: int) -> Alike:
    """Group the available items of the catalogue by kind, as of `now_ms`."""
    size = len(catalogue)
    if size == 0:
        return NOTHING
    entries, ids = catalogue.items[:size], catalogue.table.ids[:size]
    brand, category = entries["brand"].astype(np.int64), entries["category"].astype(np.int64)
    _, kind = np.unique(np.where(brand > 0, brand, BRANDS + 1 + category), return_inverse=True)
    rows = lookup(known.keys, known.rows, ids)
    fade = 2.0 ** (-np.maximum(now_ms - known.stats_at[rows], 0) / (1000 * known.half_life_short))
    counts = known.stats[rows] * (fade * (rows >= 0))[:, None]
    shown = counts[:, IMPRESSIONS_SHORT] + PSEUDO
    rate = (counts[:, CLICKS_SHORT] + PSEUDO * known.prior[0]) / shown
    promise = rate + np.sqrt(rate / shown)
    there = np.flatnonzero((entries["available"] > 0) & (ids != 0))
    order = there[np.lexsort((there, -counts[there, TOUCHES_SHORT], -promise[there], kind[there]))]
    place = np.arange(len(order)) - np.searchsorted(kind[order], kind[order])
    best = place < KEPT
    items = np.zeros((int(kind.max()) + 1, KEPT), np.uint64)
    items[kind[order[best]], place[best]] = ids[order[best]]
    return Alike(kind.astype(np.int32), items)
