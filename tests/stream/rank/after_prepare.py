"""Prints the kernels that are compiled, or loaded from numba's cache, after `Rank.prepare`."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from numba.core.registry import CPUDispatcher

from stream.log import Records
from stream.messages import (
    AnyEvent,
    Cart,
    Click,
    Dismiss,
    Impression,
    Item,
    ModelUpdate,
    Purchase,
    Refund,
    Remove,
    Search,
    encode_binary,
    slate_decoder,
)  # fmt: skip
from stream.settings import THREE_ARMS
from tests.stream.rank.stage import SMALL, Stage, T

NAMES = [f"item-{i}" for i in range(30)]
ACTS = (Click, Cart, Purchase, Remove, Refund, Dismiss)


def events(k: int) -> list[AnyEvent]:
    """One of everything."""
    user, item = f"user-{k % 9}", NAMES[k % 30]
    prices = [1.0] * 5 if k % 2 else None
    shown = Impression(user_id=user, ts=T + k, items=NAMES[k % 7 : k % 7 + 5], prices=prices)
    acts = [kind(user_id=user, ts=T + k, item_id=item) for kind in ACTS]
    return [
        shown,
        *acts,
        Search(user_id=user, ts=T + k, query="x"),
        Click(user_id=f"v{k}", ts=T, item_id=item),
    ]


def _signatures() -> set[str]:
    """Of every kernel that has been compiled or loaded."""
    functions = {
        f for m in list(sys.modules.values()) for f in vars(m).values() if isinstance(f, CPUDispatcher)
    }
    return {f"{f.py_func.__module__}.{f.py_func.__name__}{s}" for f in functions for s in f.signatures}


def run(folder: Path) -> set[str]:
    """Prepare rank, then let it do everything that it ever does, with the model in `folder`."""
    stage = Stage(folder / "store", msgspec.structs.replace(SMALL, arms=THREE_ARMS))
    stage.rank.prepare()
    before = _signatures()
    stage.items(*(Item(item_id=name, category=f"c{i % 3}", price=i) for i, name in enumerate(NAMES)))
    for k in range(20):
        stage.feed(*events(k))
    stage.rank.tick(T / 1000)
    checksum = stage.rank.store.put("a.model", (folder / "snapshot").read_bytes())
    named = [
        ModelUpdate(slot=slot, epoch=1, n=0, trained_through=T, uri="a.model", checksum=checksum)
        for slot in ("fresh", "frozen")
    ]
    delta = ModelUpdate(
        slot="fresh", epoch=1, n=1, trained_through=T, payload=(folder / "delta").read_bytes()
    )
    values: list[bytes | None] = [encode_binary(update) for update in (*named, delta)]
    stage.rank.absorb(Records("model", 0, [0, 1, 2], [T] * 3, [None] * 3, values), T / 1000)
    stage.rank.tick(T / 1000 + 2)
    outputs = [o for k in range(1200) for o in stage.feed(*events(k))]
    slates = [slate_decoder.decode(o.value or b"") for o in outputs if o.topic == "recommendations"]
    assert {(s.arm, s.model.version) for s in slates} == {
        ("fresh", "1-1"),
        ("frozen", "1-0"),
        ("popularity", "1-1"),
    }
    assert {i.source for s in slates for i in s.items} & {"near", "recent", "alike"}  # of their own
    return _signatures() - before


if __name__ == "__main__":
    for one in sorted(run(Path(sys.argv[1]))):
        print(one)
