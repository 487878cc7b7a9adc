"""A shop's traffic, and the roles as they are after some seconds of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from models.learner import Learner
from stream.checkpoint import Store
from stream.log import Output, Records
from stream.messages import Item, ModelUpdate, decode_model, encode_json
from stream.partition import partition_of
from stream.rank.publish import Publisher
from stream.rank.role import Rank
from stream.settings import Features, Settings
from stream.train.role import Train, new_learner
from stream.train.versions import UNIT

START_MS = 1_700_000_000_000
USERS, ITEMS, LIST = 20_000, 5_000, 10
BATCH = 1024
"""Records of one partition that a busy loop gets in one poll: a share of `runner.LIMIT`."""

WHOLE = "whole.model"

Pair = tuple[bytes, bytes]


class Mix(NamedTuple):
    """What the traffic is made of: the share of impressions (of `LIST` items); the rest is feedback."""

    name: str
    impressions: float


CLICKS = Mix("clicks", 0.1)
LISTS = Mix("lists", 1.0)


def settings_for(directory: Path) -> Settings:
    """The defaults, but files go to `directory`, and there is room for this shop's users only."""
    base = Settings(features=Features(users=100_000))
    return msgspec.structs.replace(
        base, checkpoints=msgspec.structs.replace(base.checkpoints, path=str(directory / "checkpoints"))
    )


def catalogue() -> list[Item]:
    """Every item of the shop."""
    rng = np.random.default_rng(1)
    prices = np.round(rng.lognormal(3, 1, ITEMS), 2).tolist()
    return [
        Item(item_id=f"item-{i}", category=f"category-{i % 40}", brand=f"brand-{i % 300}", price=price)
        for i, price in enumerate(prices)
    ]


class Traffic:
    """Visitors see lists of popular items and act on what they saw; JSON as a shop writes it."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._shown: dict[int, list[str]] = {}

    def events(
        self, mix: Mix, count: int, start_ms: int = START_MS, users: int = USERS, rate: int = 2_000
    ) -> list[Pair]:
        """Keys and values of `count` events, `rate` a second of event time."""
        rng = self._rng
        user = rng.integers(0, users, count).tolist()
        shows = (rng.random(count) < mix.impressions).tolist()
        acts = rng.choice(["click", "cart", "purchase"], count, p=[0.85, 0.1, 0.05]).tolist()
        return [
            self.impression(u, ts) if shown else self.feedback(u, ts, act)
            for u, shown, act, ts in zip(
                user, shows, acts, (start_ms + 1000 * np.arange(count) // rate).tolist(), strict=True
            )
        ]

    def impression(self, user: int, ts: int) -> Pair:
        """The user sees a list."""
        # a square of uniform numbers: some items are far more popular than others
        picked = (ITEMS * self._rng.random(LIST) ** 2).astype(int)
        items = [f"item-{i}" for i in dict.fromkeys(picked.tolist())]
        self._shown[user] = items
        return _pair(type="impression", user_id=f"visitor-{user}", ts=ts, items=items, surface="home")

    def feedback(self, user: int, ts: int, act: str = "click") -> Pair:
        """The user acts on an item of the list seen last, or on any."""
        items = self._shown.get(user)
        item = items[int(self._rng.integers(len(items)))] if items else f"item-{self._rng.integers(ITEMS)}"
        return _pair(
            type=act, user_id=f"visitor-{user}", ts=ts, item_id=item, price=19.9, session_id=f"session-{user}"
        )

    def visit(self, user: int, ts: int) -> list[Pair]:
        """Five events at once, the last a click: two pages and what was done there."""
        return [
            self.impression(user, ts), self.feedback(user, ts), self.feedback(user, ts, "cart"),
            self.impression(user, ts), self.feedback(user, ts),
        ]  # fmt: skip


def _pair(**event: Any) -> Pair:
    return event["user_id"].encode(), msgspec.json.encode(event)


def batches(events: list[Pair], partitions: int, first: dict[int, int] | None = None) -> list[Records]:
    """The events as a loop would get them, `BATCH` of a partition at a time, partitions in turn.

    Broker time is event time. `first` is the offset that each partition begins at, and is moved on.
    """
    first = {} if first is None else first
    shares: list[list[Pair]] = [[] for _ in range(partitions)]
    for key, value in events:
        shares[partition_of(key, partitions)].append((key, value))
    made = []
    for k in range(0, max(map(len, shares)), BATCH):
        for p, share in enumerate(shares):
            if part := share[k : k + BATCH]:
                begin = first.get(p, 0)
                first[p] = begin + len(part)
                keys, values = zip(*part, strict=True)
                times = [msgspec.json.decode(value)["ts"] for value in values]
                offsets = list(range(begin, begin + len(part)))
                made.append(Records("events", p, offsets, times, list(keys), list(values)))
    return made


class _Mute(Publisher):
    """Publishes no slates."""

    def slates(self, *_: Any) -> list[Output]:
        return []

    def strangers(self, *_: Any) -> list[Output]:
        return []


def new_rank(settings: Settings, store: Store, model: ModelUpdate | None) -> Rank:
    """A rank without slates that has every partition, the catalogue and a model."""
    rank = Rank(settings, store)
    rank.publisher = _Mute(settings, rank.shape, rank.arms, rank.limits, rank.scratch)
    rank.prepare()
    for p in range(settings.kafka.partitions):
        rank.restore(f"rank-{p}", [p], [])
    items = catalogue()
    values: list[bytes | None] = [encode_json(item) for item in items]
    keys: list[bytes | None] = [item.item_id.encode() for item in items]
    count = len(items)
    rank.absorb(Records("items", 0, list(range(count)), [START_MS] * count, keys, values), START_MS / 1000)
    if model is not None:
        rank.slots["fresh"].take(model, store)
    return rank


@dataclass
class World:
    """Rank and train after some seconds of traffic, which begins at `START_MS`.

    Attributes
    ----------
    examples
        What rank sent to train.
    updates
        The versions that train published: a snapshot, then a delta for each second.
    whole
        A snapshot of what is learned in the end; rank serves it.
    """

    settings: Settings
    store: Store
    rank: Rank
    learner: Learner
    examples: list[Records]
    updates: list[ModelUpdate]
    whole: ModelUpdate


@cache
def grow(directory: Path, seconds: int, visits: int) -> World:
    """Run rank (without slates) and train for `seconds` of `visits` five-event visits each.

    What it returns is shared: change nothing in it.
    """
    settings = settings_for(directory)
    store = Store(Path(settings.checkpoints.path))
    rank = new_rank(settings, store, None)
    learner = new_learner(settings)
    train = new_train(settings, store, learner)
    examples: list[Records] = []
    updates: list[ModelUpdate] = []
    traffic, first = Traffic(), dict[int, int]()
    for second in range(seconds):
        now = START_MS + 1000 * second
        users = np.random.default_rng(second).choice(USERS, visits, replace=False).tolist()
        events = [pair for user in users for pair in traffic.visit(user, now)]
        for records in batches(events, settings.kafka.partitions, first):
            for output in rank.process(records, now / 1000, quiet=False):
                if output.topic == "examples":
                    examples.append(_as_records(output, len(examples), now))
                    train.process(examples[-1], now / 1000, quiet=False)
        outputs = drain(train, now / 1000)
        updates += [decode_model(o.value) for o in outputs if o.topic == "model" and o.value]
    checksum = store.put(WHOLE, learner.snapshot())
    newest = updates[-1]
    whole = msgspec.structs.replace(newest, n=newest.n + 1, payload=None, uri=WHOLE, checksum=checksum)
    rank.slots["fresh"].take(whole, store)
    return World(settings, store, rank, learner, examples, updates, whole)


def new_train(settings: Settings, store: Store, learner: Learner) -> Train:
    """A train that has every partition, and nothing learned yet."""
    train = Train(settings, store, make=lambda _: learner)
    train.prepare()
    train.restore(UNIT, list(range(settings.kafka.partitions)), [])
    return train


def drain(train: Train, now: float) -> list[Output]:
    """Let train learn from all that is ready, but for less than a batch; returns what it publishes."""
    outputs = train.tick(now)
    while train.session and train.session.buffer.waiting >= train.settings.train.lists_per_batch:
        outputs += train.tick(now)
    return outputs


def _as_records(output: Output, offset: int, now_ms: int) -> Records:
    """What train reads, from what rank sent."""
    return Records(output.topic, output.partition, [offset], [now_ms], [None], [output.value])
