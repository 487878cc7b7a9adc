"""Who is new: items with and without content, visitors before and after their first clicks.

``python -m tests.experiments.cold_start`` runs the simulated shop on rank and train in virtual time and
prints what became of the newcomers. Every other new item is published with its name and date only: what
the catalogue says of the others (category, brand, price) is what makes the difference.

Standard errors are as if impressions were independent, and so a little too small. Visitors are grouped by the
clicks that they have made: where slates are poor, who has clicked often is keener than others who have.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from models.batch import Array
from stream.log import Output, Sink
from stream.messages import (
    STRANGER,
    AnyEvent,
    Click,
    Impression,
    Item,
    decode_event,
    decode_item,
    encode_json,
    slate_decoder,
)
from stream.rank.candidates import find_candidates
from stream.rank.decode import context_ids
from stream.rank.publish import Stock
from stream.rank.role import Rank
from stream.rank.visitors import blank_memory
from stream.settings import Arm, Checkpoints, Features, Settings, SlateSettings, Train
from stream.shop import Shop, ShopSettings
from stream.shop.visitors import best_pages, examination, sigmoid
from tests.flow.harness import START, Stage

SETTINGS = Settings(
    features=Features(users=32_768, items=10_000),
    train=Train(
        rows=4096, width=16, hidden=32, replay=2, click_wait_s=5.0, evaluate_after_s=10.0, device="cpu"
    ),
    slate=SlateSettings(candidates=200),
    checkpoints=Checkpoints(seconds=3600.0, events=10**9),
    arms=(Arm(name="fresh", share=0.5, model="fresh"), Arm(name="popularity", share=0.5, model="popularity")),
)
SHOP = ShopSettings(visitors=1500, pages_per_s=40, items=1000, bots=0, contexts=0.5)
TURN_S = 0.25
FIRST = 100
"""Impressions that an item counts as new for."""
DESIRED = 20
"""Items that a visitor would like best, of which those that are new should be candidates."""
ASK_S, ASKED = 5.0, 16
"""So often, so many visitors' candidates are looked at, and what as many strangers would see first."""
CONTEXT, STRANGERS, POPULAR = "slate for the context", "strangers' slate", "most popular"
CLICKS = (0, 1, 3, 10)
"""Least clicks of each group of visitors."""


@dataclass
class Share:
    """A rate as a count and what it is a count of."""

    hits: float = 0.0
    of: float = 0.0

    def add(self, other: Share) -> None:
        """Count what `other` counted, too."""
        self.hits, self.of = self.hits + other.hits, self.of + other.of

    @property
    def rate(self) -> float:
        return self.hits / self.of if self.of else float("nan")

    @property
    def error(self) -> float:
        """Standard error, as if all were independent."""
        return float(np.sqrt(self.rate * (1 - self.rate) / self.of)) if self.of else float("nan")


@dataclass
class Newcomers:
    """What became of those who came after the first minute.

    Attributes
    ----------
    items
        CTR of new items in their first impressions on pages of the fresh arm, by whether they have content.
    recall
        Of new items that a visitor would like, those among the candidates; by content.
    visitors
        CTR of pages by arm and by the visitor's clicks so far.
    first
        CTR to expect, by the shop's truth, of some who have not seen a page yet, at each moment asked: on the
        slate for their context, on the strangers' slate, on the most popular items, on the best for each.
    """

    items: dict[bool, Share] = field(default_factory=lambda: defaultdict(Share))
    recall: dict[bool, Share] = field(default_factory=lambda: defaultdict(Share))
    visitors: dict[tuple[str, int], Share] = field(default_factory=lambda: defaultdict(Share))
    first: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, other: Newcomers) -> None:
        """Those of another shop, too."""
        for content in other.items:
            self.items[content].add(other.items[content])
            self.recall[content].add(other.recall[content])
        for group, share in other.visitors.items():
            self.visitors[group].add(share)
        for name, moments in other.first.items():
            self.first[name] += moments


class Plain:
    """A sink that takes the content away from every other item that is published after `since` (ms)."""

    def __init__(self, sink: Sink, since: int) -> None:
        self._sink, self._since = sink, since

    def publish(self, output: Output) -> None:
        if output.topic == "items" and output.value is not None:
            item = decode_item(output.value)
            assert isinstance(item.published_at, int)
            if item.published_at > self._since and not has_content(item.item_id):
                bare = Item(item_id=item.item_id, available=item.available, published_at=item.published_at)
                output = output._replace(value=encode_json(bare))
        self._sink.publish(output)

    def flush(self) -> None:
        self._sink.flush()


def has_content(item_id: str) -> bool:
    """Items are numbered as they are born."""
    return int(item_id[1:]) % 2 == 0


class Experiment:
    """The shop on rank and train, and who is new there."""

    def __init__(self, path: Path, seed: int = 0, warm_s: float = 60.0) -> None:
        self.stage = Stage(path, msgspec.structs.replace(SETTINGS))
        log, start_ms = self.stage.log, int(START * 1000)
        self.warm_s, self.seconds = warm_s, 0.0
        source = log.broadcast_source("recommendations", {})
        shop = ShopSettings(**{**msgspec.structs.asdict(SHOP), "seed": seed})
        self.shop = Shop(shop, Plain(log.sink(), start_ms), source, start_ms)
        self.found = Newcomers()
        self._events = log.broadcast_source("events", {})
        self._slates = log.broadcast_source("recommendations", {})
        self._strangers: list[str] = []
        self._rng = np.random.default_rng(seed)
        self._clicks: Counter[str] = Counter()
        self._known: set[str] = set()  # visitors of the first minute
        self._pages: dict[str, tuple[str, Impression, int]] = {}
        self._impressions: Counter[str] = Counter()
        self._next_ask = warm_s
        self.shop.step(0.0)
        self.stage.start("train")
        self.stage.start("rank")

    def run(self, seconds: float) -> Newcomers:
        """Go on for so long."""
        for _ in range(round(seconds / TURN_S)):
            self.seconds += TURN_S
            self.shop.step(self.seconds)
            self.stage.turn(TURN_S)
            self._read()
            if self.seconds >= self._next_ask:
                self._next_ask += ASK_S
                self._ask()
                self._ask_strangers()
        return self.found

    def _read(self) -> None:
        for records in self._slates.poll(100_000, 0.0):
            for key, value in zip(records.keys, records.values, strict=True):
                if key == STRANGER.encode() and value is not None:
                    self._strangers = [item.item_id for item in slate_decoder.decode(value).items]
        for records in self._events.poll(100_000, 0.0):
            for event in map(decode_event, records.values):
                if self.seconds < self.warm_s:
                    self._known.add(event.user_id)
                self._take(event)

    def _take(self, event: AnyEvent) -> None:
        if isinstance(event, Impression):
            self._see(event)
        elif isinstance(event, Click):
            self._clicks[event.user_id] += 1
            arm, page, clicks = self._pages[event.user_id]
            if event.slate_id == page.slate_id:  # else the page has been turned
                self._count(arm, event.user_id, clicks, event.item_id, Share(hits=1))

    def _see(self, page: Impression) -> None:
        arm = page.trace.partition(".")[0] if page.trace else "none"
        clicks = self._clicks[page.user_id]
        self._pages[page.user_id] = arm, page, clicks
        for item_id in page.items:
            self._impressions[item_id] += arm == "fresh"
            self._count(arm, page.user_id, clicks, item_id, Share(of=1))

    def _count(self, arm: str, user: str, clicks: int, item_id: str, one: Share) -> None:
        places = []
        if user not in self._known:
            places.append(self.found.visitors[arm, max(c for c in CLICKS if c <= clicks)])
        if arm == "fresh" and self._is_new(item_id):
            places.append(self.found.items[has_content(item_id)])
        for share in places:
            share.add(one)

    def _is_new(self, item_id: str) -> bool:
        born_here = int(item_id[1:]) >= SHOP.items
        return self.seconds > self.warm_s and born_here and self._impressions[item_id] <= FIRST

    def _ask(self) -> None:
        """Look for the new items that some visitors would like best among their candidates."""
        world, visitors = self.shop.world, self.shop.visitors
        for visitor in self._rng.choice(len(visitors.ids), ASKED, replace=False).tolist():
            user = visitors.ids[visitor]
            if not self._clicks[user]:
                continue
            best = np.argsort(-visitors.logits(np.array([visitor]))[0])[:DESIRED].tolist()
            desired = [world.ids[place] for place in best if self._is_new(world.ids[place])]
            found = self._candidates(user) if desired else set()
            for item_id in desired:
                share = self.found.recall[has_content(item_id)]
                share.add(Share(hits=item_id in found, of=1))

    def _ask_strangers(self) -> None:
        """See what to expect of the first page of some who have not seen one."""
        shop, slot = self.shop, self._rank().slots["fresh"]
        unseen = np.array([k for k, user in enumerate(shop.visitors.ids) if user not in self._pages])
        if not len(unseen) or not self._strangers:
            return
        asked = self._rng.choice(unseen, ASKED)
        click = sigmoid(shop.visitors.logits(asked))
        slates = [self._first_slate(shop.visitors.contexts.told(visitor)) for visitor in asked.tolist()]
        popular = [self._rank().catalogue.name(code) or "" for code in slot.trending.tolist()]
        pages = {CONTEXT: slates, STRANGERS: [self._strangers] * ASKED, POPULAR: [popular] * ASKED}
        for name, seen in pages.items():
            self._expect(name, [row[self._places(items)] for row, items in zip(click, seen, strict=True)])
        best = np.take_along_axis(click, best_pages(click, SHOP.page_size), axis=1)
        self._expect("best for each", list(best))

    def _first_slate(self, context: dict[str, str]) -> list[str]:
        """What somebody gets of whom only the context is known."""
        rank = self._rank()
        somebody = blank_memory(1, rank.shape.history, 1)
        somebody.visitor["context"] = context_ids(context)
        stock = Stock(somebody, rank.slots, rank.catalogue, SETTINGS.slate.candidates)
        rows, times = np.zeros(1, np.int64), np.array([int(self.stage.now * 1000)])
        (best,) = rank.publisher._rank("fresh", rows, times, stock, SHOP.page_size)
        return [rank.catalogue.name(code) or "" for code in best.item.tolist()]

    def _places(self, items: Sequence[str]) -> list[int]:
        """Where the first of these items that are still on sale, a page of them, stand in the world."""
        place = {item_id: place for place, item_id in enumerate(self.shop.world.ids)}
        return [place[item_id] for item_id in items if item_id in place][: SHOP.page_size]

    def _expect(self, name: str, click: list[Array]) -> None:
        """Note how often the items of these pages would be clicked on average."""
        ctr = [(page * examination(len(page))).mean() for page in click]
        self.found.first[name].append(float(np.mean(ctr)))

    def _rank(self) -> Rank:
        rank = self.stage.runners["rank"].role
        assert isinstance(rank, Rank)
        return rank

    def _candidates(self, user: str) -> set[str]:
        rank, limit = self._rank(), SETTINGS.slate.candidates
        number = rank.users.look([user])
        (home,) = rank.users.homes(number).tolist()
        slot, visitors = rank.slots["fresh"], rank.shares[home].visitors
        (row,) = visitors.rows(rank.users.hashes(number))
        item, source = np.zeros(limit, np.uint64), np.zeros(limit, np.uint8)
        found = find_candidates(
            item, source, visitors.memory.history[row], int(self.stage.now * 1000), True, slot.trending,
            rank.catalogue.newest(limit), slot.alike, slot.known, rank.catalogue.known(),
            rank.limits.exclude_bought, rank.scratch,
        )  # fmt: skip
        return {rank.catalogue.name(code) or "" for code in item[:found].tolist()}


def tables(found: Newcomers) -> list[Table]:
    """The figures, for people."""
    items = Table(
        "new items",
        f"CTR of the first {FIRST} impressions",
        "impressions",
        f"recall of the {DESIRED} best in 200",
        "asked",
    )
    for content in (True, False):
        ctr, recall = found.items[content], found.recall[content]
        items.add_row(
            "category, brand, price" if content else "name and date only",
            told(ctr), f"{ctr.of:,.0f}", told(recall), f"{recall.of:,.0f}",
        )  # fmt: skip
    first = Table("first page of somebody new", "CTR to expect", "less that of the strangers' slate")
    for name in found.first:
        more, error = advantage(found, name, STRANGERS)
        first.add_row(name, f"{np.mean(found.first[name]):.2%}", f"{more:.2%} ± {error:.2%}")
    visitors = Table("new visitors", *(f"{c}+ clicks" if c else "none yet" for c in CLICKS))
    for arm in ("default", "fresh", "popularity"):
        shares = [found.visitors[arm, c] for c in CLICKS]
        visitors.add_row(arm, *(f"{told(s)} ({s.of:,.0f})" if s.of else "" for s in shares))
    return [items, first, visitors]


def advantage(found: Newcomers, one: str, other: str) -> tuple[float, float]:
    """How much higher the CTR of one first page is than that of another, and the standard error.

    The same visitors are asked about both; moments are taken as independent.
    """
    more = np.subtract(found.first[one], found.first[other])
    return float(more.mean()), float(more.std(ddof=1) / np.sqrt(len(more)))


def told(share: Share) -> str:
    """A rate with its standard error."""
    return f"{share.rate:.2%} ± {share.error:.2%}"


def main() -> None:
    """Run it and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.cold_start", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="of the shop's time, after a minute")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of shops, taken together")
    arguments = parser.parse_args()
    found = Newcomers()
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            experiment = Experiment(Path(folder), seed)
            found.add(experiment.run(experiment.warm_s + arguments.seconds))
    for table in tables(found):
        Console(width=140).print(table)


if __name__ == "__main__":
    main()
