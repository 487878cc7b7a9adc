"""Small streams, made up."""

import numpy as np

from stream.messages import Click, Impression, Item, Purchase, encode_json
from stream.replay.formats import Recorded, record
from stream.settings import Features, Settings, Train

START_MS = 1_700_000_000_000

SMALL = Settings(
    features=Features(users=8192, items=10_000),
    train=Train(rows=2048, width=8, hidden=16, click_wait_s=2.0, evaluate_after_s=4.0, device="cpu"),
)


def lists(count, named=True, country=False, seed=0):
    """Lists of 6 of 20 items, one every second, each followed by a click, often on the least id.

    With `country` lists tell it, another each time.
    """
    rng = np.random.default_rng(seed)
    records = []
    for k in range(count):
        ts, user = START_MS + 1000 * k, f"u{rng.integers(8)}"
        items = rng.permutation(20)[:6]
        slate = f"s{k}"
        context = {"country": "ab"[k % 2]} if country else None
        shown = Impression(
            user_id=user, ts=ts, items=[f"i{i}" for i in items], slate_id=slate, context=context
        )
        clicked = f"i{min(items) if rng.random() < 0.8 else items[0]}"
        click = Click(user_id=user, ts=ts + 100, item_id=clicked, slate_id=slate if named else None)
        records += [record(shown), record(click)]
    return records


def acts(count, seed=0):
    """Records of purchases without lists: whoever touches item 2k touches 2k + 1 after it."""
    rng = np.random.default_rng(seed)
    records = []
    for k in range(count // 2):
        user, pair = f"u{rng.integers(30)}", 2 * rng.integers(40)
        for i in range(2):
            ts = START_MS + 60_000 * (2 * k + i)
            records.append(record(Purchase(user_id=user, ts=ts, item_id=f"i{pair + i}")))
    return records


def entry(ts, item_id, category=""):
    """A record of the catalogue."""
    item = Item(item_id=item_id, category=category)
    return Recorded(ts, ("", 0), "items", item_id.encode(), encode_json(item))
