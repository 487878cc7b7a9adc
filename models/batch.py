"""Layout of what is learned from and scored: features by name, and the ragged batch of lists.

Shape legend, used all over `models`:

===  ======================================================================
B    lists (training) or users (scoring)
N    items of all lists together; list b has items ``start[b]:start[b+1]``
F    features (`FEATURES`)
H    history entries per user, newest first
R    rows of the item table; the first `Shape.cold` are shared by rare items
C    category buckets (category hash mod C; bucket 0: no category)
D    width of an embedding
K    neighbours kept per item
T    tasks (`TASKS`)
X    `CONTEXTS`
===  ======================================================================
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

TASKS = ("click", "cart", "purchase")
CLICK, CONVERSIONS = 0b001, 0b110
"""Tasks as bits, as `Lists.labels` and `Lesson` have them: carts and purchases may come minutes later."""

FEATURES = (
    # the item, as train counts it (half-lives short and long); rates are smoothed towards the mean
    "shown",  # log1p impressions, short
    "touched",  # log1p clicks, carts and purchases, short
    "ctr",  # clicks per impression, short
    "ctr_long",
    "popularity",  # log1p clicks, carts and purchases, long
    "cart_rate",  # carts per click, long
    "purchase_rate",  # purchases per click, long
    "item_age",  # log1p seconds since published or first seen; -1 unknown
    "category_ctr",  # of the item's category, short; in the user's context, where that is known
    # the item in its list
    "list_size",  # log1p
    "prior_rank",  # place from 1 in an order that is not ours; 0 when there is none
    "price",  # log1p; -1 unknown, as for the next four
    "price_rank",  # share of the list that is cheaper
    "price_to_median",  # log ratio to the list's median
    "price_to_min",  # log ratio to the list's cheapest
    "price_to_own",  # log ratio to the mean of the user's history
    "list_recency",  # 1 / (1 + items of this list touched since the user touched it); 0 never
    "same_list",  # 1 when the user's list before showed the same items in the same order
    "from_touched",  # places after the item of this list that the user touched last, -30 when there is none
    "from_clicked",  # places after the place of the user's last click, -30 when there is none
    # the item in the user's history
    "own_events",  # how often the user touched it
    "own_age",  # log1p seconds since; 0 never, as for the next five
    "own_recency",  # 1 / (1 + distinct items touched since)
    "own_clicks",
    "own_list_clicks",  # of these, in a list
    "own_carts",
    "own_purchases",
    "own_session",  # touched within this session
    "seen",  # how often it was shown to the user in the lists remembered
    "seen_age",  # log1p seconds since it was shown; -1 never
    "seen_place",  # its place then, from 1; 0 never
    # the user's taste
    "category_share",  # share of the history in the item's category, decayed by recency
    "category_last",  # 1 when the last touched item is of the same category
    "brand_share",
    "near_sum",  # co-visitation with the history, decayed by recency
    "near_max",  # the largest part of near_sum
    "near_last",  # co-visitation with the item touched last
    "near_items",  # items of the history that it is a neighbour of
    "next_sum",  # as near_sum, of pairs where the item came second; popularity is not divided out
    "often_sum",  # how often it met the history's items, whatever the time between
    # the user's session
    "steps",  # log1p events in the session
    "session_age",  # log1p seconds
    "idle",  # log1p seconds since the user's last event
    "after_act",  # 1 when that was feedback outside of lists, such as a product page
    "after_list_click",  # 1 when it was feedback in a list
    "after_search",  # 1 when it was a search
    "history_size",
    "session_clicks",  # log1p
)

CONTEXTS = 4
"""Things that are known of a visitor's context (country, device, ...) at the most."""

F = len(FEATURES)
FEATURE = {name: index for index, name in enumerate(FEATURES)}

STATISTICS = (
    "impressions_short",
    "clicks_short",
    "touches_short",
    "impressions_long",
    "clicks_long",
    "touches_long",
    "carts_long",
    "purchases_long",
)
"""Decayed counts per item row and category bucket; clicks follow an impression, touches need none."""
S = len(STATISTICS)
SHORT, LONG = slice(0, 3), slice(3, 8)


@dataclass(frozen=True)
class Shape:
    """Sizes that a model, its examples and its deltas must agree on."""

    rows: int = 100_000
    cold: int = 1024
    categories: int = 4096
    width: int = 32
    hidden: int = 32
    history: int = 32
    neighbours: int = 32
    bins: int = 16
    bin_width: int = 8
    half_life_short: float = 3600.0
    half_life_long: float = 86_400.0
    pair_half_life: float = 3600.0
    near_half_life: float = 2_592_000.0
    history_half_life: float = 21_600.0

    @property
    def schema(self) -> int:
        """Checksum of everything that makes two parties understand each other's arrays."""
        return zlib.crc32(repr((FEATURES, STATISTICS, TASKS, self)).encode())


class Lesson(NamedTuple):
    """What a step teaches of each item, uint8 [N]: bit t set, that task t happened, or that it did not.

    With delayed labels an item may teach both, at different times, or neither.
    """

    positive: Array
    negative: Array


@dataclass(frozen=True)
class Lists:
    """A ragged batch of B lists.

    Attributes
    ----------
    start : int64 [B + 1]
    item : uint64 [N]
        64-bit hash of the item id.
    category : uint16 [N]
        Category bucket.
    features : float32 [N, F]
        Raw values, as frozen at the impression.
    place : int16 [N]
        Place in a slate of ours, from 1; 0 where the order was not ours (no position bias).
    history : uint64 [B, H], newest first, 0 where empty
    history_category : uint16 [B, H]
    age : float32 [B, H]
        Seconds between the history entry and the list; -1 where empty.
    labels : uint8 [N]
        Bit t set: task t of `TASKS` happened.
    """

    start: Array
    item: Array
    category: Array
    features: Array
    place: Array
    history: Array
    history_category: Array
    age: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.start) - 1


def per_list(start: Array, flags: Array) -> Array:
    """How many items of each list are flagged (bool or 0 and 1, [N]), int64 [B].

    >>> per_list(np.array([0, 2, 2, 3]), np.array([True, True, False])).tolist()
    [2, 0, 0]
    """
    counts: Array = np.diff(np.append(0, np.cumsum(flags, dtype=np.int64))[start])
    return counts
