"""What the state kernel reads of a batch of events, and what it writes for each of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.batch import CONTEXTS, Array, F
from stream.rank.arms import ITEM_SHIFT, Trace
from stream.rank.decode import IMPRESSION, Columns

LAST_PLACE = 255
"""An explored place after this one would not fit; slates are shorter."""

LIST = np.dtype(
    [
        ("surprise", np.float64),  # sum over the items of -log2 of their share of impressions
        ("pairs", np.int64),  # pairs of items with known categories
        ("apart", np.int64),  # of these, pairs of different categories
        ("young", np.int64),  # items younger than a minute
    ]
)
ACT = np.dtype(
    [
        ("list_offset", np.int64),  # offset of its list, or `NO_LIST`
        ("place", np.int64),  # place in the list from 0, -1 without a list
        ("surface", np.uint16),  # the list's
        ("category", np.uint16),  # the item's
        ("odds", np.float32),  # of the item, where it stands at the list's explored place; else 0
        ("pool", np.uint16),
        ("chosen", np.uint16),
        ("arm", np.uint8),  # the list's, else the user's
        ("in_list", np.uint8),  # 1 where it answers its list: names it, or the list has no name
    ],
    align=True,
)
EVENT = np.dtype(
    [
        ("offset", np.int64),
        ("ts", np.int64),
        ("visitor", np.int64),  # row
        ("item", np.uint64),
        ("slate", np.uint64),
        ("first", np.int64),  # its items in `shown`: from first to last - 1
        ("last", np.int64),
        ("row", np.int64),  # index among the impressions, or among the feedbacks
        ("price", np.float32),
        ("odds", np.float32),  # of its explored place, as its trace has them
        ("pool", np.uint16),
        ("chosen", np.uint16),
        ("surface", np.uint16),
        ("kind", np.uint8),
        ("explored", np.uint8),  # its explored place, from 1; 0 none
        ("arm", np.uint8),  # the list's where its trace says so, else the user's
        ("own", np.uint8),  # 1 where the slate is one of ours
        ("context", np.uint64, CONTEXTS),  # 0 where it says less
    ],
    align=True,
)


NEXT = np.dtype(
    [
        ("offset", np.int64),  # of the act
        ("size", np.int64),  # of the list
        ("act", np.int64),  # index among the feedbacks
    ]
)
DRAWN = 32
"""Items of a list that is made of an act: its own, and candidates that were not chosen."""


class Given(NamedTuple):
    """What the kernel reads: n events, N items in all their impressions together."""

    event: NDArray[Any]  # EVENT [n]
    shown: NDArray[Any]  # uint64 [N]
    price: NDArray[Any]  # float32 [N]; -1 not given


class Seen(NamedTuple):
    """What the kernel writes, for B impressions with N items and K feedbacks, in the order of events.

    The last arrays have room for a list made of each feedback; see `stream.rank.next_item`.
    """

    # per impression
    list: NDArray[Any]  # LIST [B]
    history: NDArray[Any]  # uint64 [B, H]
    history_category: NDArray[Any]  # uint16 [B, H]
    age: NDArray[Any]  # float32 [B, H]
    context: NDArray[Any]  # uint64 [B, X]
    # per item shown
    category: NDArray[Any]  # uint16 [N]
    features: NDArray[Any]  # float32 [N, F]
    # per feedback
    act: NDArray[Any]  # ACT [K]
    act_history: NDArray[Any]  # uint64 [K, H]
    act_age: NDArray[Any]  # float32 [K, H]
    act_context: NDArray[Any]  # uint64 [K, X]
    # per list made of a feedback
    next_count: NDArray[Any]  # int64 [1]: how many there are
    next: NDArray[Any]  # NEXT [K]
    next_item: NDArray[Any]  # uint64 [K, DRAWN]
    next_category: NDArray[Any]  # uint16 [K, DRAWN]
    next_features: NDArray[Any]  # float32 [K, DRAWN, F]
    next_history_category: NDArray[Any]  # uint16 [K, H]


def give(columns: Columns, visitor: Array) -> Given:
    """Arrange the columns of a batch as the kernel reads them; `visitor` is [n].

    Arms, surfaces and what was explored are still to be filled in.
    """
    event = np.zeros(len(columns.ts), EVENT)
    for name in ("offset", "ts", "item", "slate", "price", "kind", "own", "context"):
        event[name] = getattr(columns, name)
    shows, acts = columns.kind == IMPRESSION, columns.kind < IMPRESSION
    event["row"] = np.where(shows, np.cumsum(shows), np.cumsum(acts)) - 1
    event["visitor"] = visitor
    event["first"], event["last"] = columns.start[:-1], columns.start[1:]
    return Given(event, columns.shown, columns.shown_price)


def tell(trace: Trace, given: Given, i: int) -> None:
    """Let the impression at index `i` be what its trace says.

    The explored place is where its item stands: a page may leave out items that were before it. One that is
    not on the page was not explored.
    """
    event, explored = given.event[i], trace.explored
    event["arm"] = trace.arm
    if explored is None:
        return
    shown = given.shown[event["first"] : event["last"]] >> np.uint64(ITEM_SHIFT)
    place = 1 + np.flatnonzero(shown == explored.item)[:1]
    if len(place) and place[0] <= LAST_PLACE:
        event["explored"], event["odds"] = place[0], explored.odds
        event["pool"], event["chosen"] = explored.pool, explored.chosen


def blank(columns: Columns, history: int) -> Seen:
    """Arrays of the sizes that these events need."""
    b, k = int((columns.kind == IMPRESSION).sum()), int((columns.kind < IMPRESSION).sum())
    n = len(columns.shown)
    return Seen(
        list=np.zeros(b, LIST),
        history=np.empty((b, history), np.uint64),
        history_category=np.empty((b, history), np.uint16),
        age=np.empty((b, history), np.float32),
        context=np.empty((b, CONTEXTS), np.uint64),
        category=np.empty(n, np.uint16),
        features=np.empty((n, F), np.float32),
        act=np.zeros(k, ACT),
        act_history=np.empty((k, history), np.uint64),
        act_age=np.empty((k, history), np.float32),
        act_context=np.empty((k, CONTEXTS), np.uint64),
        # mostly not used: what is not touched takes no memory
        next_count=np.zeros(1, np.int64),
        next=np.empty(k, NEXT),
        next_item=np.empty((k, DRAWN), np.uint64),
        next_category=np.empty((k, DRAWN), np.uint16),
        next_features=np.empty((k, DRAWN, F), np.float32),
        next_history_category=np.empty((k, history), np.uint16),
    )
