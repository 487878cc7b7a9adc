"""The simulated shop as a client of liverank: it knows the topics and nothing else."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from stream.errors import Fatal
from stream.log import Output, Sink, Source
from stream.messages import (
    STRANGER,
    AnyEvent,
    Impression,
    Item,
    Slate,
    encode_binary,
    encode_json,
    slate_decoder,
)
from stream.shop.acts import DISMISS, SEARCH, Act, Agenda, after
from stream.shop.settings import ShopSettings
from stream.shop.truth import Truth
from stream.shop.visitors import (
    BOUGHT,
    CLICKED,
    DISMISSED,
    SHOWN,
    Visitors,
    best_pages,
    examination,
    sigmoid,
)
from stream.shop.world import Floats, Ints, World, style_name

TICK_S = 0.05
SURFACE = "home"
MAX_UNSENT = 200_000
"""Records kept while the brokers take none: ten minutes of a busy shop."""

logger = logging.getLogger(__name__)


class _Page(NamedTuple):
    """What one visitor sees: places of the items, whose list it is."""

    places: list[int]
    slate_id: str
    trace: str | None
    arm: str


class Shop:
    """Visitors see pages, click, buy; the pages show what `recommendations` brought.

    Publishes the catalogue with the first step, later its changes. Every event has an `event_id`
    and a `ts` on one line with the clock that drives `step`. The same settings, `start_ms` and slates
    give the same records.

    Parameters
    ----------
    settings
        The shop's.
    sink
        For `events`, `items` and `outcomes`.
    source
        Of `recommendations`.
    start_ms
        Wall clock at time 0, ms since the epoch; also tells the runs apart.

    Attributes
    ----------
    counts : Counter of str
        Events published, by type; ``unreadable`` slates; ``slates`` read.
    """

    def __init__(self, settings: ShopSettings, sink: Sink, source: Source, start_ms: int) -> None:
        ours, visitors, acts = (
            np.random.default_rng(seed) for seed in np.random.SeedSequence(settings.seed).spawn(3)
        )
        self._settings, self._sink, self._source, self._start_ms = settings, sink, source, start_ms
        self.world = World(settings, start_ms, ours)
        self.visitors = Visitors(settings, self.world, visitors)
        self.counts: Counter[str] = Counter()
        self._rng = acts
        self._agenda = Agenda()
        self._truth = Truth(start_ms)
        self._examination = examination(settings.page_size)
        self._place = {item: place for place, item in enumerate(self.world.ids)}
        self._slates: dict[str, Slate] = {}
        self._outbox: deque[Output] = deque()
        self._ticks = 0
        self._named = 0
        self._publish_items([self.world.item(place) for place in range(settings.items)])

    def step(self, now: float) -> None:
        """Live up to `now` (s since the start, never back) and publish what happened.

        Raises
        ------
        Retryable
            The brokers are away; nothing is lost, the next step sends it.
        Fatal
            They have been away for too long.
        """
        if len(self._outbox) > MAX_UNSENT:
            raise Fatal(
                f"{len(self._outbox)} records of the shop could not be published: brokers away too long"
            )
        self._read_slates()
        while (self._ticks + 1) * TICK_S <= now + 1e-9:
            self._ticks += 1
            self._tick(self._ticks * TICK_S)
        self._send()

    def _tick(self, t: float) -> None:
        changes = self.world.advance(t)
        if changes.changed:
            self._restock(changes.changed, changes.retired)
        for act in self._agenda.until(t):
            self._do(act)
        who = self.visitors.due(t)
        if len(who):
            self._show_pages(who, t)
        outcomes = self._truth.over(self._ms(t) // 1000)
        if outcomes is not None:
            self._outbox.append(Output("outcomes", None, encode_binary(outcomes)))

    def _restock(self, changed: list[int], retired: list[Item]) -> None:
        born = [place for place in changed if self.world.ids[place] not in self._place]
        for item in retired:
            self._place.pop(item.item_id, None)
        self._place.update({self.world.ids[place]: place for place in born})
        self.visitors.forget_items(born)
        self._publish_items([*retired, *map(self.world.item, dict.fromkeys(changed))])

    def _do(self, act: Act) -> None:
        self._publish(act.event(self._next_id(), self._ms(act.due)))
        tired = {"click": CLICKED, "purchase": BOUGHT, "dismiss": DISMISSED}.get(act.kind)
        still_there = self.visitors.ids[act.visitor] == act.user
        if tired and still_there and self._place.get(act.item_id) == act.place:
            self.visitors.tire(act.visitor, act.place, tired)
        following = after(act, self._rng, self._settings.buy, self._settings.buy_s)
        if following is not None:
            self._agenda.add(following)

    def _show_pages(self, who: Ints, t: float) -> None:
        self.visitors.arrive(who, t)
        click = sigmoid(self.visitors.logits(who))
        top = np.take_along_axis(click, best_pages(click, self._settings.page_size), axis=1)
        best = top @ self._examination
        for row, visitor in enumerate(who.tolist()):
            page = self._page(self.visitors.ids[visitor])
            self._publish(self._impression(visitor, page, t))
            if self.visitors.bot[visitor]:
                self._click_all(visitor, page, t)
                continue
            chances = click[row, page.places] * self._examination
            self._plan(visitor, page, chances, t)
            self.visitors.fatigue[visitor, page.places] += SHOWN
            self._truth.add(
                self._ms(t) // 1000, page.arm, len(page.places), float(chances.sum()), float(best[row])
            )
        self.visitors.leave_page(who, t)

    def _page(self, user: str) -> _Page:
        """The visitor's slate, or the strangers', or nothing; random items where it is short."""
        slate = self._slates.get(user) or self._slates.get(STRANGER)
        listed = [self._place.get(item.item_id) for item in slate.items] if slate else []
        known = [place for place in dict.fromkeys(listed) if place is not None]
        places = known[: self._settings.page_size]
        while len(places) < self._settings.page_size:
            place = int(self._rng.integers(self._settings.items))
            if place not in places:
                places.append(place)
        if slate is None or not known:
            return _Page(places, f"page-{self._next_id()}", None, "none")
        arm = slate.arm if slate.user_id == user else "none"
        return _Page(places, slate.slate_id, slate.trace or None, arm)

    def _impression(self, visitor: int, page: _Page, t: float) -> Impression:
        return Impression(
            user_id=self.visitors.ids[visitor],
            ts=self._ms(t),
            event_id=self._next_id(),
            items=[self.world.ids[place] for place in page.places],
            slate_id=page.slate_id,
            trace=page.trace,
            prices=[round(float(price), 2) for price in self.world.price[page.places]],
            surface=SURFACE,
            context=self.visitors.contexts.told(visitor),
        )

    def _plan(self, visitor: int, page: _Page, chances: Floats, t: float) -> None:
        """Draw what the visitor will do with this page."""
        rng = self._rng
        for place in np.array(page.places)[rng.random(len(chances)) < chances].tolist():
            self._agenda.add(self._act("click", visitor, page, place, t + rng.uniform(0.5, 3)))
        if rng.random() < DISMISS:
            place = page.places[int(np.argmin(chances))]
            self._agenda.add(self._act("dismiss", visitor, page, place, t + rng.uniform(1, 3)))
        if rng.random() < SEARCH:
            interest = self.visitors.interests[visitor, self.visitors.dominating[visitor]]
            act = self._act("search", visitor, page, page.places[0], t + rng.uniform(1, 3))
            self._agenda.add(act._replace(query=style_name(int(interest))))

    def _click_all(self, visitor: int, page: _Page, t: float) -> None:
        for place in page.places:
            act = self._act("click", visitor, page, place, t + self._rng.uniform(0.1, 0.4))
            self._agenda.add(act._replace(cart_chance=0.0))

    def _act(self, kind: str, visitor: int, page: _Page, place: int, due: float) -> Act:
        dear = float(self.visitors.sensitivity[visitor] * self.world.price_gap[place])
        user = self.visitors.ids[visitor]
        return Act(
            due=due,
            kind=kind,
            user=user,
            session=f"{user}-{self.visitors.sessions[visitor]}",
            visitor=visitor,
            place=place,
            item_id=self.world.ids[place],
            price=round(float(self.world.price[place]), 2),
            slate_id=page.slate_id,
            cart_chance=1 / (1 + float(np.exp(1.4 + dear))),
        )

    def _read_slates(self) -> None:
        while batch := self._source.poll(2_000, 0.0):
            for records in batch:
                for key, value in zip(records.keys, records.values, strict=True):
                    self._take_slate(key or b"", value)
        self._source.gaps.clear()  # a slate that expired unread has been replaced since
        if len(self._slates) > 4 * self._settings.visitors:
            here = {*self.visitors.ids, STRANGER}
            self._slates = {user: slate for user, slate in self._slates.items() if user in here}

    def _take_slate(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._slates.pop(key.decode(errors="replace"), None)
            return
        try:
            slate = slate_decoder.decode(value)
        except msgspec.DecodeError as error:
            self.counts["unreadable"] += 1
            logger.warning("recommendations: slate of %r cannot be read: %s", key, error)
            return
        self.counts["slates"] += 1
        known = self._slates.get(slate.user_id)
        if known is None or _position(slate) >= _position(known):
            self._slates[slate.user_id] = slate

    def _publish_items(self, items: Sequence[Item]) -> None:
        self._outbox.extend(Output("items", item.item_id.encode(), encode_json(item)) for item in items)

    def _publish(self, event: AnyEvent) -> None:
        self.counts[event.__struct_config__.tag] += 1  # type: ignore[index]
        self._outbox.append(Output("events", event.user_id.encode(), encode_json(event)))

    def _send(self) -> None:
        while self._outbox:
            self._sink.publish(self._outbox[0])
            self._outbox.popleft()
        self._sink.flush()

    def _next_id(self) -> str:
        self._named += 1
        return f"{self._start_ms:x}-{self._named:x}"

    def _ms(self, t: float) -> int:
        return self._start_ms + round(t * 1000)


def _position(slate: Slate) -> tuple[int, int]:
    """Orders a user's slates: by the newest event, for strangers by time."""
    return (slate.event.offset, slate.ts)
