"""After a crash at any step of the runner, counts and state end as if nothing had happened."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stream.messages import Cart, Click, Impression, Item, Purchase
from stream.rank.role import Rank
from tests.flow.harness import START, Crash, Stage

USERS = [f"user-{u}" for u in range(12)]
CUBES = ("ctr", "experiment", "items", "health")


def _events(second: int) -> list[Impression | Click | Cart | Purchase]:
    """One second of a small shop: everybody sees a list, some click, fewer buy."""
    rng = np.random.default_rng(second)
    ts = int(START * 1000) + 1000 * second
    events: list[Impression | Click | Cart | Purchase] = []
    for user in USERS:
        items = [f"item-{i}" for i in rng.choice(50, 6, replace=False)]
        events.append(Impression(user_id=user, ts=ts, items=items, event_id=f"{user}-{second}"))
        if rng.random() < 0.5:
            events.append(Click(user_id=user, ts=ts + 100, item_id=items[2]))
        if rng.random() < 0.2:
            events.append(Cart(user_id=user, ts=ts + 200, item_id=items[2]))
        if rng.random() < 0.1:
            events.append(Purchase(user_id=user, ts=ts + 300, item_id=items[2], price=9.5))
    return events


def _run(path: Path, crash_at: tuple[int, int, int] | None) -> Stage:
    """Eight seconds of events; in a turn, rank is killed when it is about to take a step so many times."""
    stage = Stage(path)
    stage.publish(Item(item_id=f"item-{i}", category=f"c{i % 5}", price=float(i)) for i in range(50))
    turn, taken = 0, Counter[tuple[int, int]]()

    def step(number: int) -> None:
        taken[turn, number] += 1
        if (turn, number, taken[turn, number]) == crash_at:
            raise Crash

    stage.start("rank", step)
    for second in range(8):
        stage.publish(_events(second))
        for _ in range(3):
            try:
                stage.turn(1 / 3)
            except Crash:
                stage.start("rank")
            turn += 1
    stage.settle()
    return stage


def _counts(stage: Stage) -> dict[tuple[object, ...], tuple[float, ...]]:
    """Every count that is a function of the events (how many slates were needed is not)."""
    return {key: row for key, row in stage.counted(*CUBES).items() if "slates" not in key}


def _state(stage: Stage) -> list[dict[str, object]]:
    """Everything rank remembers of each partition, visitors in the order of their hashes."""
    rank = stage.runners["rank"].role
    assert isinstance(rank, Rank)
    found = []
    for _, share in sorted(rank.shares.items()):
        kept = share.visitors.state(only_touched=False)
        order = np.argsort(kept["visitor"]["user"])
        kept["visitor"]["published"] = 0  # an answer that was lost before it was acknowledged is given again
        rows = {
            f"{k}.{field}": kept[k][field][order].tolist()
            for k in ("visitor", "history", "lists")
            for field in kept[k].dtype.names
        }
        found.append(rows | {"head": kept["head"]})
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return _run(tmp_path_factory.mktemp("undisturbed"), None)


@pytest.mark.parametrize("step", [(1, 1), (2, 1), (3, 1), (2, 2), (3, 2), (4, 1), (5, 1), (6, 1)])
@pytest.mark.parametrize("turn", [4, 13, 22])
def test_a_crash_before_any_step_changes_neither_counts_nor_state(
    undisturbed: Stage, tmp_path: Path, turn: int, step: tuple[int, int]
) -> None:
    crashed = _run(tmp_path, (turn, *step))
    assert _counts(crashed) == _counts(undisturbed)
    assert _state(crashed) == _state(undisturbed)
    assert crashed.slates().keys() == undisturbed.slates().keys()


def test_what_was_published_is_what_is_counted(undisturbed: Stage) -> None:
    events = [e for second in range(8) for e in _events(second)]
    counted = undisturbed.counted("ctr")
    assert sum(row[0] for row in counted.values()) == sum(
        len(e.items) for e in events if isinstance(e, Impression)
    )
    assert sum(row[1] for row in counted.values()) == sum(isinstance(e, Click) for e in events)
    assert sum(row[4] for row in counted.values()) == 9.5 * sum(isinstance(e, Purchase) for e in events)


def test_two_runs_of_one_stream_give_the_same_bytes(undisturbed: Stage, tmp_path: Path) -> None:
    again = _run(tmp_path, None)
    for topic in ("recommendations", "examples", "outcomes"):
        assert again.log.outputs(topic) == undisturbed.log.outputs(topic)
