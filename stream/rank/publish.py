"""Slates as messages: for the visitors whom a batch touched, and for strangers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from models.batch import Shape
from models.covisitation import Scratch
from stream.ids import hash_id
from stream.log import Output, Records
from stream.messages import STRANGER, ModelVersion, Position, Slate, SlateItem, encode_json
from stream.rank.arms import ITEM_SHIFT, Arms, Explored
from stream.rank.candidates import SOURCES
from stream.rank.catalogue import Catalogue
from stream.rank.decode import IMPRESSION, OWN_SLATE, Columns
from stream.rank.explore import Draw, Explorer, chooses
from stream.rank.known import Limits
from stream.rank.models import Slot
from stream.rank.slate import USERS, Best, best_popular, best_scored, gather_offers, offers
from stream.rank.visitors import Memory, blank_memory
from stream.settings import Settings

Array = NDArray[Any]

FLOOD, FEWER = 256, 4
"""When so many visitors are due a slate at once, each gets it from one in so many of the candidates: rank is
behind then, and what helps most is to be there soon."""


class Due(NamedTuple):
    """A visitor who is due a slate: row, code of the arm, index of the newest event, always or if changed."""

    visitor: int
    arm: int
    event: int
    always: bool


class Stock(NamedTuple):
    """What slates are made from: visitors, models, items, and how many candidates each visitor gets."""

    memory: Memory
    slots: dict[str, Slot]
    catalogue: Catalogue
    limit: int


class Publisher:
    """Makes slates; keeps the buffers, and what is published but not yet acknowledged."""

    def __init__(
        self, settings: Settings, shape: Shape, arms: Arms, limits: Limits, scratch: Scratch
    ) -> None:
        self.slate, self.arms, self.limits, self.scratch = settings.slate, arms, limits, scratch
        self.explorer = Explorer(settings)
        self._buffers = offers(settings.slate.candidates, shape.history)
        self._published: list[tuple[int, float]] = []
        # strangers are a visitor without any event
        self._nobody = blank_memory(1, shape.history, 1)
        self._strangers = 0

    def prepare(self, slot: Slot, catalogue: Catalogue) -> None:
        """Compile the kernels."""
        one = np.zeros(1, np.int64)
        stock = Stock(self._nobody, {"fresh": slot}, catalogue, self.slate.candidates)
        self._rank("fresh", one, one, stock, 1)

    def take_published(self) -> list[tuple[int, float]]:
        """Partition and broker time (ms) of the event behind each slate since the last call."""
        published, self._published = self._published, []
        return published

    def slates(
        self,
        records: Records,
        columns: Columns,
        visitor: Array,
        memory: Memory,
        slots: dict[str, Slot],
        catalogue: Catalogue,
        now: float,
    ) -> list[Output]:
        """Slates for everybody who is in a batch; once each, as of their newest event.

        Feedback is always answered; after anything else a slate is published when its list changed.
        """
        due: dict[str, list[Due]] = {}
        everybody = _due(columns, visitor, self.arms)
        for one in everybody:
            due.setdefault(self.arms.models[one.arm], []).append(one)
        stock = Stock(memory, slots, catalogue, self._limit(len(everybody)))
        outputs = []
        for model, group in due.items():
            for k in range(0, len(group), USERS):
                part = group[k : k + USERS]
                rows = np.array([d.visitor for d in part], np.int64)
                times = columns.ts[[d.event for d in part]]
                found = self._rank(model, rows, times, stock, self.explorer.ranked)
                for one, best in zip(part, found, strict=True):
                    output = self._slate(records, columns, one, best, stock, now)
                    if output is not None:
                        outputs.append(output)
                        self._published.append((records.partition, float(columns.broker_ts[one.event])))
        return outputs

    def strangers(self, now: float, slot: Slot, catalogue: Catalogue) -> list[Output]:
        """The slate for those who are not known, if its list has changed."""
        now_ms = int(now * 1000)
        one = np.zeros(1, np.int64)
        stock = Stock(self._nobody, {"fresh": slot}, catalogue, self.slate.candidates)
        (best,) = self._rank("fresh", one, one + now_ms, stock, self.slate.size)
        items = self._items(best, slot, catalogue)
        code = _list_hash(items)
        if not items or code == self._strangers:
            return []
        self._strangers = code
        position = Position(-1, -1, now_ms)
        trace = self.arms.trace(self.arms.strangers, slot.version)
        slate = self._message(
            STRANGER,
            f"{OWN_SLATE}{STRANGER}-{now_ms}",
            self.arms.strangers,
            items,
            slot,
            position,
            now_ms,
            trace,
        )
        return [Output("recommendations", STRANGER.encode(), encode_json(slate))]

    def _limit(self, due: int) -> int:
        """Candidates for each of so many visitors who are due a slate at once."""
        few = max(self.slate.candidates // FEWER, 2 * self.slate.size)
        return self.slate.candidates if due < FLOOD else min(few, self.slate.candidates)

    def _rank(self, model: str, rows: Array, times: Array, stock: Stock, size: int) -> list[Best]:
        """The `size` best items of each of `rows`, as of `times` (ms)."""
        popular, slot, catalogue = model == "popularity", _slot(stock.slots, model), stock.catalogue
        gather_offers(
            self._buffers,
            rows,
            times,
            stock.limit,
            not popular,
            slot.trending,
            catalogue.newest(stock.limit),
            slot.alike,
            stock.memory,
            slot.known,
            catalogue.known(),
            self.limits,
            self.scratch,
        )
        if popular:
            return best_popular(self._buffers, len(rows), size)
        return best_scored(self._buffers, len(rows), slot, size)

    def _slate(
        self, records: Records, columns: Columns, due: Due, best: Best, stock: Stock, now: float
    ) -> Output | None:
        slot, catalogue, memory = _slot(stock.slots, self.arms.models[due.arm]), stock.catalogue, stock.memory
        items = self._items(_part(best, slice(self.slate.size)), slot, catalogue)
        code = _list_hash(items)
        if not due.always and code == int(memory.visitor["published"][due.visitor]):
            return None
        memory.visitor["published"][due.visitor] = code
        user_id = columns.events[due.event].user_id
        offset, ts = int(columns.offset[due.event]), int(columns.ts[due.event])
        explored = None
        if draw := self.explorer.draw(due.arm, records.partition, offset, len(best.item)):
            (item,) = self._items(_part(best, [draw.rank]), slot, catalogue)
            items[draw.slot] = structs.replace(item, explored=True)
            explored = self._explored(due, ts, best, draw, stock)
        slate_id = f"{OWN_SLATE}{records.partition}-{offset}"
        position, trace = (
            Position(records.partition, offset, ts),
            self.arms.trace(due.arm, slot.version, explored),
        )
        slate = self._message(user_id, slate_id, due.arm, items, slot, position, int(now * 1000), trace)
        return Output("recommendations", user_id.encode("utf-8", "replace"), encode_json(slate))

    def _explored(self, due: Due, ts: int, best: Best, draw: Draw, stock: Stock) -> Explored:
        """What the trace tells of it; every other model is asked what it would have chosen from the pool."""
        item, pool = int(best.item[draw.rank]), best.item[draw.pool]
        own = self.arms.models[due.arm]
        chosen = {own: draw.rank == draw.slot}
        rows, times = np.array([due.visitor], np.int64), np.array([ts], np.int64)
        for model in {*self.arms.models[: self.arms.strangers]} - {own}:
            (other,) = self._rank(model, rows, times, stock, stock.limit)
            chosen[model] = chooses(other.item, pool, item)
        bits = sum(
            1 << arm for arm, model in enumerate(self.arms.models[: self.arms.strangers]) if chosen[model]
        )
        return Explored(item >> ITEM_SHIFT, len(pool), draw.odds, bits)

    def _items(self, best: Best, slot: Slot, catalogue: Catalogue) -> list[SlateItem]:
        return [
            SlateItem(name, score, p[0], p[1], p[2], SOURCES[source])
            for name, source, score, p in zip(
                self._names(best.item, slot, catalogue),
                best.source.tolist(),
                best.score.tolist(),
                best.p.tolist(),
                strict=True,
            )
        ]

    def _names(self, items: Array, slot: Slot, catalogue: Catalogue) -> list[str]:
        names = [catalogue.name(code) for code in items.tolist()]
        if None in names and slot.served is not None:
            rows = slot.served.table.lookup(items).tolist()
            learned = slot.served.names
            names = [learned[r] if n is None and r >= 0 else n for n, r in zip(names, rows, strict=True)]
        return [n or "" for n in names]

    def _message(
        self,
        user_id: str,
        slate_id: str,
        arm: int,
        items: list[SlateItem],
        slot: Slot,
        position: Position,
        ts: int,
        trace: str,
    ) -> Slate:
        return Slate(
            user_id=user_id,
            slate_id=slate_id,
            ts=ts,
            arm=self.arms.names[arm],
            items=items,
            model=ModelVersion(slot.version, slot.trained_through),
            event=position,
            trace=trace,
            expires=ts + int(self.slate.expires_s * 1000),
        )


def _part(best: Best, index: slice | list[int]) -> Best:
    return Best(*(column[index] for column in best))


def _slot(slots: dict[str, Slot], model: str) -> Slot:
    """The model to serve from; until there is a frozen one, the fresh one is what it will be."""
    return slots["frozen"] if model == "frozen" and slots["frozen"].served is not None else slots["fresh"]


def _due(columns: Columns, visitor: Array, arms: Arms) -> list[Due]:
    newest: dict[int, tuple[int, bool]] = {}
    feedback = (columns.kind < IMPRESSION).tolist()
    for i, (v, acted) in enumerate(zip(visitor.tolist(), feedback, strict=True)):
        newest[v] = (i, acted or (v in newest and newest[v][1]))
    events = [i for i, _ in newest.values()]
    arm = arms.of(columns.user[events]).tolist()
    return [Due(v, a, i, always) for (v, (i, always)), a in zip(newest.items(), arm, strict=True)]


def _list_hash(items: list[SlateItem]) -> int:
    """Names what a slate shows; an empty one has the value of none at all, 0."""
    return hash_id("\n".join(item.item_id for item in items)) if items else 0
