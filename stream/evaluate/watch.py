"""Rank as it always is, with somebody who watches: each event is told just before it is taken in.

Only slates are left out: thousands would be published that nobody reads. Whoever watches may ask for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from msgspec.structs import replace

from models.batch import Array, F
from models.covisitation import top_near
from stream.checkpoint import Store
from stream.evaluate.copies import Copy
from stream.log import Output, Records
from stream.rank.catalogue import Catalogue
from stream.rank.decode import IMPRESSION, PURCHASE, Columns
from stream.rank.features import gather_neighbours, write_features
from stream.rank.feedback import NO_LIST
from stream.rank.flood import Capped
from stream.rank.given import Given, Seen, blank
from stream.rank.models import Slot
from stream.rank.publish import Publisher, Stock
from stream.rank.role import Rank
from stream.rank.share import Share
from stream.rank.slate import Best
from stream.rank.visitors import Memory
from stream.settings import Settings


class Joined(NamedTuple):
    """Labels as rank joins them, [M]: list (its offset), place, task, whether the act names the list."""

    offset: Array
    place: Array
    task: Array
    named: Array


class Moment(NamedTuple):
    """Rank just before an event: what it knows of the visitor (row `visitor`), and would recommend."""

    publisher: OnDemand
    offset: int
    visitor: int
    now: int
    memory: Memory
    fresh: Slot
    catalogue: Catalogue

    def recommend(self, slot: Slot) -> Best:
        """All candidates, best first, as `slot` ranks them."""
        return self.publisher.order(self, slot)

    def features(self, slot: Slot, items: Array, prices: Array, foreign: bool) -> Array:
        """Features (float32 [n, F]) of a list as `slot` makes them, see `write_features`."""
        features, categories = np.empty((len(items), F), np.float32), np.empty(len(items), np.uint16)
        write_features(
            features, categories, items, prices.copy(), foreign, self.visitor, self.now, self.memory,
            slot.known, self.catalogue.known(), self.publisher.limits, self.publisher.scratch,
        )  # fmt: skip
        return features

    def near(self, limit: int) -> Array:
        """Up to `limit` ids (uint64) by co-visitation alone, best first."""
        near, weight = np.empty(limit, np.uint64), np.empty(limit, np.float32)
        scratch = self.publisher.scratch
        gather_neighbours(scratch, self.memory.history[self.visitor], self.now, self.fresh.known)
        return near[: top_near(scratch, near, weight)]


class Audience(Protocol):
    """Who watches. Users and items are 64-bit hashes; all is told in the order of events."""

    def shown(self, offset: int, user: int, slate: int, items: list[int]) -> None:
        """A list is about to be taken in; `slate` is 0 where it has no name."""
        ...

    def wants(self, user: int, item: int) -> bool:
        """Whether to be asked before this act is taken in."""
        ...

    def ask(self, user: int, item: int, moment: Moment) -> None:
        """An act that was wanted is about to be taken in."""
        ...

    def touched(self, user: int, item: int) -> None:
        """An act (click, cart, purchase) is about to be taken in."""
        ...

    def joined(self, labels: Joined) -> None:
        """Acts of this batch that belong to lists."""
        ...


class OnDemand(Publisher):
    """Publishes nothing by itself."""

    def slates(self, *args: object, **kwargs: object) -> list[Output]:
        """None."""
        return []

    def strangers(self, *args: object, **kwargs: object) -> list[Output]:
        """None."""
        return []

    def order(self, moment: Moment, slot: Slot) -> Best:
        """All candidates of one visitor, best first."""
        rows, times = np.array([moment.visitor]), np.array([moment.now])
        stock = Stock(moment.memory, {"fresh": slot}, moment.catalogue, self.slate.candidates)
        (best,) = self._rank("fresh", rows, times, stock, self.slate.size)
        return best


class WatchedRank(Rank):
    """Rank that `audience` watches; `copies` follow its model, batch by batch.

    Attributes
    ----------
    read
        Broadcast topic -> records read of it.
    capped
        Events left out as part of a flood.
    """

    def __init__(
        self, settings: Settings, store: Store, audience: Audience, copies: Mapping[str, Copy]
    ) -> None:
        super().__init__(settings, store)
        self.audience, self.copies = audience, copies
        whole = replace(settings.slate, size=settings.slate.candidates)
        self.publisher = OnDemand(
            replace(settings, slate=whole), self.shape, self.arms, self.limits, self.scratch
        )
        self.read: dict[str, int] = {}
        self.capped = 0
        self._slates: dict[int, int] = {}
        self._watched = False

    def prepare(self) -> None:
        """Compile the kernels; what they are tried on is nobody's business."""
        super().prepare()
        self._watched = True

    def absorb(self, records: Records, now: float) -> list[Output]:
        """Take in broadcast records; notes how far each topic has been read."""
        self.read[records.topic] = records.offsets[-1] + 1
        return super().absorb(records, now)

    def _cap(self, columns: Columns, share: Share) -> Capped:
        capped = super()._cap(columns, share)
        self.capped += len(capped.left_out)
        return capped

    def _take(self, columns: Columns, given: Given, share: Share) -> Seen:
        if not self._watched:
            return super()._take(columns, given, share)
        for copy in self.copies.values():
            copy.follow(int(columns.ts[0]), self.slots["fresh"])
        behind = any(copy.slot is not None for copy in self.copies.values())
        seen, done = blank(columns, self.shape.history), 0
        event = given.event
        rows = (event[name].tolist() for name in ("kind", "offset", "item", "slate", "first", "last"))
        users, shown = columns.user.tolist(), given.shown.tolist()
        for i, (user, kind, offset, item, slate, first, last) in enumerate(zip(users, *rows, strict=True)):
            if kind == IMPRESSION:
                self.audience.shown(offset, user, slate, shown[first:last])
                self._slates[offset] = slate
                if behind:
                    self._play(given, seen, share, done, i)
                    done = i
                    self._freeze(given, i, share)
            elif kind <= PURCHASE:
                if self.audience.wants(user, item):
                    self._play(given, seen, share, done, i)
                    done = i
                    self.audience.ask(user, item, self._moment(event[i], share))
                self.audience.touched(user, item)
        self._play(given, seen, share, done, len(event))
        self.audience.joined(self._labels(event, seen))
        return seen

    def _play(self, given: Given, seen: Seen, share: Share, first: int, last: int) -> None:
        """Take events `first` to `last` - 1 of a batch in."""
        self._take_in(given._replace(event=given.event[first:last]), seen, share)

    def _freeze(self, given: Given, i: int, share: Share) -> None:
        """Let each copy make the features of the list at index `i`, before it is taken in."""
        event = given.event[i]
        moment, part = self._moment(event, share), slice(event["first"], event["last"])
        if event["context"][0] != 0:
            moment.memory.visitor["context"][moment.visitor] = event["context"]  # a list knows its own
        items, prices, foreign = given.shown[part], given.price[part], bool(event["own"] == 0)
        for copy in self.copies.values():
            if copy.slot is not None:
                copy.features[moment.offset] = moment.features(copy.slot, items, prices, foreign)

    def _moment(self, event: Array, share: Share) -> Moment:
        publisher = self.publisher
        assert isinstance(publisher, OnDemand)
        return Moment(
            publisher, int(event["offset"]), int(event["visitor"]), int(event["ts"]),
            share.visitors.memory, self.slots["fresh"], self.catalogue,
        )  # fmt: skip

    def _labels(self, event: Array, seen: Seen) -> Joined:
        act = event[event["kind"] <= PURCHASE]
        where = seen.act[act["row"]]
        listed = where["list_offset"] != NO_LIST
        act, where = act[listed], where[listed]
        slates = [self._slates.get(offset, 0) for offset in where["list_offset"].tolist()]
        named = (act["slate"] != 0) & (act["slate"] == np.array(slates, np.uint64))
        return Joined(where["list_offset"], where["place"], act["kind"].astype(np.int64), named)
