"""Who is new gets what is liked where they come from, as rank and train find out by themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stream.messages import AnyEvent, Click, Impression, Item, Search
from tests.flow.harness import SMALL, START, Stage

LIKED = {"de": [f"hat-{k}" for k in range(6)], "fr": [f"shoe-{k}" for k in range(6)]}
GOODS = [*LIKED["de"], *LIKED["fr"], *(f"sock-{k}" for k in range(28))]


def _people(second: int) -> list[AnyEvent]:
    """Twenty new visitors see eight goods each, and click on those that are liked where they come from."""
    rng, ts = np.random.default_rng(second), int(START * 1000) + 1000 * second
    events: list[AnyEvent] = []
    for person in range(20):
        user, country = f"u{second}-{person}", ("de", "fr")[person % 2]
        shown = rng.choice(GOODS, 8, replace=False).tolist()
        events.append(Impression(user_id=user, ts=ts, items=shown, context={"country": country}))
        clicked = [item for item in shown if item in LIKED[country] or rng.random() < 0.05]
        events += [Click(user_id=user, ts=ts + 300, item_id=item) for item in clicked]
    return events


def test_each_country_is_first_shown_what_is_liked_there(tmp_path: Path) -> None:
    stage = Stage(tmp_path, SMALL)
    old = int(START * 1000) - 10**9
    stage.publish(Item(item_id=name, category=name.split("-")[0], published_at=old) for name in GOODS)
    stage.start("train")
    stage.start("rank")
    for second in range(25):
        stage.publish(_people(second))
        stage.turn(1.0)
    ts = int(stage.now * 1000)
    stage.publish(Search(user_id=f"from-{c}", ts=ts, query="", context={"country": c}) for c in LIKED)
    stage.settle(5)
    for country, liked in LIKED.items():
        first = [item.item_id for item in stage.slates()[f"from-{country}"].items]
        assert set(first[: len(liked)]) == set(liked)
