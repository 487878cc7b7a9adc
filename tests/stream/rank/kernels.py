"""Every kernel of rank on a small random case; `main` writes the arrays to a file."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from models.batch import Array
from models.table import Table
from stream.ids import hash_id
from stream.messages import (
    AnyEvent,
    Cart,
    Click,
    Dismiss,
    Impression,
    Item,
    Purchase,
    Refund,
    Remove,
    Search,
)  # fmt: skip
from stream.rank.feedback import take_events
from stream.rank.given import Seen, blank
from stream.rank.next_item import Pool
from stream.rank.slate import gather_offers, offers
from tests.stream.rank.stage import SMALL, Stage, T

ITEMS = [f"item-{i}" for i in range(12)]
ACTS = (Click, Cart, Cart, Cart, Purchase, Remove, Refund, Dismiss)


def run(path: Path, events: int = 160) -> dict[str, Array]:
    """Everything that the kernels write, by name."""
    rng = np.random.default_rng(7)
    stage = Stage(path)
    stage.items(*(_item(i, rng) for i in range(8)))
    rank, slot = stage.rank, stage.rank.slots["fresh"]
    slot.known = slot.known._replace(**_known(rng))
    slot.group(rank.catalogue, T / 1000)
    quiet = [Click(user_id=f"quiet-{k % 3}", ts=T + k, item_id=ITEMS[k % 7]) for k in range(20)]
    records = stage.records(*(_event(rng, k) for k in range(events)), *quiet)
    columns = rank._decode(records, stage.share).columns
    given = rank._given(columns, stage.share.visitors.rows(columns.user), stage.share)
    seen = blank(columns, rank.shape.history)
    memory = stage.share.visitors.memory
    arguments = memory, slot.known, rank.catalogue.known(), rank.limits, rank.scratch
    trending = np.array([hash_id(name) for name in ITEMS[7:10]], np.uint64)
    room = np.zeros(SMALL.slate.candidates, np.uint64), np.zeros(SMALL.slate.candidates, np.uint8)
    pool = Pool(trending, rank.catalogue.newest(16), slot.alike, *room)
    take_events(given, seen, *arguments, pool)
    out = offers(SMALL.slate.candidates, rank.shape.history)
    users = np.arange(5)
    gather_offers(
        out, users, np.full(5, T + 10**6), SMALL.slate.candidates, True, trending, rank.catalogue.newest(16),
        slot.alike, *arguments,
    )  # fmt: skip
    found = {f"seen.{name}": array for name, array in _made(seen)._asdict().items()}
    last = int(out.start[5])
    found |= {f"offers.{n}": a[:last] for n, a in out._asdict().items() if len(a) > len(out.age)}
    found |= {"offers.age": out.age[:5], "offers.history_row": out.history_row[:5]}
    found |= {name: getattr(memory, name) for name in ("visitor", "history", "lists", "ring", "head")}
    plain = {n: a[:10_000] for n, a in found.items() if not a.dtype.names}
    fields = {f"{n}.{f}": a[f] for n, a in found.items() for f in a.dtype.names or ()}
    return plain | fields


def _made(seen: Seen) -> Seen:
    """Without the room that lists made of acts have not taken."""
    count = int(seen.next_count[0])
    room = np.arange(seen.next_item.shape[1]) >= seen.next["size"][:count, None]
    cut = {name: getattr(seen, name)[:count].copy() for name in seen._fields if name.startswith("next")}
    for name in ("next_item", "next_category", "next_features"):
        cut[name][room] = 0
    return seen._replace(**cut | {"next_count": seen.next_count})


def _item(i: int, rng: np.random.Generator) -> Item:
    price = None if i == 3 else float(i)
    return Item(
        item_id=ITEMS[i], category=f"c{i % 3}", brand=f"b{i % 2}", price=price, available=i != 5,
        published_at=T - int(rng.integers(0, 10**8)),
    )  # fmt: skip


def _event(rng: np.random.Generator, k: int) -> AnyEvent:
    context = {"country": f"x{k % 2}"} if k % 4 == 0 else None
    user, ts = f"user-{rng.integers(5)}", T + 1000 * k + int(rng.integers(-90_000, 90_000))
    draw = rng.random()
    if draw < 0.4:
        items = [str(x) for x in rng.choice(ITEMS, rng.integers(1, 7))]
        prices = [float(p) for p in rng.integers(0, 9, len(items))] if draw < 0.2 else None
        slate = "lr-0-1" if draw < 0.1 else None
        return Impression(user_id=user, ts=ts, items=items, prices=prices, slate_id=slate, context=context)
    if draw < 0.45:
        return Search(user_id=user, ts=ts, query="shoes")
    act = ACTS[rng.integers(len(ACTS)) if draw < 0.7 else 0]
    slate = "lr-0-1" if draw < 0.6 else None
    return act(user_id=user, ts=ts, item_id=str(rng.choice(ITEMS)), slate_id=slate)


def _known(rng: np.random.Generator) -> dict[str, Array]:
    ids = np.array([hash_id(name) for name in ITEMS], np.uint64)
    table = Table(16)
    table.put(ids[:10], np.arange(10))
    near = rng.choice(ids[1:7], (16, 32))
    near[:, 2:] = 0
    return {
        "keys": table.keys, "rows": table.rows, "near": near,
        "stats": rng.random((16, 8)).astype(np.float32) * 30, "stats_at": rng.integers(T - 10**7, T, 16),
        "first_seen": rng.integers(T - 10**8, T, 16), "near_at": rng.integers(T - 10**7, T, 16),
        "near_weight": rng.random((16, 32)).astype(np.float32),
        "near_next": rng.integers(0, 100, (16, 32), np.uint8),
        "near_often": rng.integers(0, 100, (16, 32), np.uint8),
        "context_stats": rng.random((16, 8)).astype(np.float32) * 30,
        "context_stats_at": rng.integers(T - 10**7, T, 16),
    }  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        np.savez(sys.argv[1], **run(Path(folder)))  # type: ignore[arg-type]
