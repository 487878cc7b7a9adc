"""What visitors do after a page, and when: clicks after a moment, carts later, purchases later still.

::

    page -> click (0.5-3 s) -> cart (about 5 s) -> purchase (about 25 s) -> refund (about 60 s)
         -> dismiss, search                    -> remove (about 15 s)
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stream.messages import AnyEvent, Cart, Click, Dismiss, Purchase, Refund, Remove, Search

TAKE_BACK, REFUND, DISMISS, SEARCH = 0.2, 0.01, 0.003, 0.02
"""Chances: of a cart that is not bought to be emptied; of a purchase; of a page, twice."""
CART_S, REMOVE_S, REFUND_S = 5.0, 15.0, 60.0
"""Mean delays, s; those of a purchase are settings."""
FEEDBACK: dict[str, type[Click | Cart | Purchase | Remove | Refund | Dismiss]] = {
    "click": Click,
    "cart": Cart,
    "purchase": Purchase,
    "remove": Remove,
    "refund": Refund,
    "dismiss": Dismiss,
}


class Act(NamedTuple):
    """One thing that a visitor will do.

    Attributes
    ----------
    due : float
        Seconds since the start.
    kind : str
        Of `FEEDBACK`, or ``search``.
    user, session, query, slate_id : str
        Who, in which session, for what (search), from which list (feedback).
    visitor, place : int
        Places of the visitor and of the item in the world.
    item_id, price
        The item, at the price that was shown.
    cart_chance : float
        Chance that a click is followed by a cart.
    """

    due: float
    kind: str
    user: str
    session: str
    visitor: int
    query: str = ""
    place: int = -1
    item_id: str = ""
    price: float = 0.0
    slate_id: str = ""
    cart_chance: float = 0.0

    def event(self, event_id: str, ts: int) -> AnyEvent:
        """Say it to the world."""
        if self.kind == "search":
            return Search(user_id=self.user, ts=ts, event_id=event_id, query=self.query)
        return FEEDBACK[self.kind](
            user_id=self.user,
            ts=ts,
            event_id=event_id,
            item_id=self.item_id,
            slate_id=self.slate_id,
            price=self.price,
            session_id=self.session,
        )


class Agenda:
    """Acts to come, in the order of their times; of the same time, as they were added."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Act]] = []
        self._added = 0

    def add(self, act: Act) -> None:
        """Plan one act."""
        heapq.heappush(self._heap, (act.due, self._added, act))
        self._added += 1

    def until(self, t: float) -> Iterator[Act]:
        """Take out what is due by `t`; what is added meanwhile and due too comes in its turn.

        >>> agenda = Agenda()
        >>> for due in (3.0, 1.0, 2.0):
        ...     agenda.add(Act(due, "search", "u", "s", 0))
        >>> [act.due for act in agenda.until(2.0)]
        [1.0, 2.0]
        """
        while self._heap and self._heap[0][0] <= t:
            yield heapq.heappop(self._heap)[2]


def after(act: Act, rng: np.random.Generator, buy: float, buy_s: float) -> Act | None:
    """What follows from an act, if anything; a cart is bought with chance `buy`, after `buy_s` on average."""
    if act.kind == "click" and rng.random() < act.cart_chance:
        return act._replace(kind="cart", due=act.due + 1 + rng.exponential(CART_S))
    if act.kind == "cart" and rng.random() < buy:
        return act._replace(kind="purchase", due=act.due + 2 + rng.exponential(buy_s))
    if act.kind == "cart" and rng.random() < TAKE_BACK:
        return act._replace(kind="remove", due=act.due + 1 + rng.exponential(REMOVE_S))
    if act.kind == "purchase" and rng.random() < REFUND:
        return act._replace(kind="refund", due=act.due + 5 + rng.exponential(REFUND_S))
    return None
