"""One visitor who clicks without end moves nothing: not what is popular, not what is learned or counted."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from stream.clickhouse import Store as ClickHouse
from stream.messages import AnyEvent, Click, Impression, Item, decode_outcomes
from stream.rank.role import Rank
from stream.train.session import NEWEST
from tests.flow.harness import SMALL, START, Stage
from tests.flow.poison import alerts

pytestmark = pytest.mark.slow

GOODS = [f"good-{i}" for i in range(20)]
JUNK = [f"junk-{i}" for i in range(3)]
SECONDS, FLOOD_S = 24, range(6, 18)
PER_S = 300


def _people(second: int) -> list[AnyEvent]:
    """Forty people see five goods each and click on the one with the lowest number."""
    rng, ts = np.random.default_rng(second), int(START * 1000) + 1000 * second
    events: list[AnyEvent] = []
    for person in range(40):
        shown = rng.choice(20, 5, replace=False)
        events.append(Impression(user_id=f"person-{person}", ts=ts, items=[GOODS[i] for i in shown]))
        events.append(Click(user_id=f"person-{person}", ts=ts + 300, item_id=GOODS[shown.min()]))
    return events


def _bot(second: int) -> list[AnyEvent]:
    ts = int(START * 1000) + 1000 * second
    return [
        Click(user_id="bot", ts=ts + 1000 * i // PER_S, item_id=JUNK[i % len(JUNK)]) for i in range(PER_S)
    ]


def _run(path: Path, events_per_s: float, bot: bool = True) -> Stage:
    features = msgspec.structs.replace(SMALL.features, events_per_s=events_per_s)
    stage = Stage(path, msgspec.structs.replace(SMALL, features=features))
    stage.publish(
        Item(item_id=name, category=name[:4], published_at=int(START * 1000) - 10**9) for name in GOODS + JUNK
    )
    stage.start("train")
    stage.start("rank")
    for second in range(SECONDS):
        stage.publish(_people(second) + (_bot(second) if bot and second in FLOOD_S else []))
        for _ in range(2):
            stage.turn(0.5)
    return stage


def _popular(stage: Stage) -> list[str | None]:
    rank = stage.runners["rank"].role
    assert isinstance(rank, Rank)
    return [rank.catalogue.name(code) for code in rank.slots["fresh"].trending[:5].tolist()]


def _clicks(stage: Stage) -> float:
    return sum(row[1] for row in stage.counted("ctr").values())


def _loss(stage: Stage) -> float:
    """Mean log loss (nats) of clicks on what people saw since the flood began, predicted at arrival."""
    counted = stage.counted("quality").items()
    rows = [
        r
        for (_, second, task, lag, _), r in counted
        if (task, lag) == ("click", NEWEST) and second >= START + FLOOD_S[0]
    ]
    count, _, _, loss = np.array(rows).sum(0)
    return float(loss / count)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return _run(tmp_path_factory.mktemp("quiet"), 5.0, bot=False)


def test_a_flood_is_capped_counted_and_kept_out(quiet: Stage, tmp_path: Path, store: ClickHouse) -> None:
    stage = _run(tmp_path, 5.0)
    assert not set(_popular(stage)) & set(JUNK)
    total = {
        name: sum(row[0] for key, row in stage.counted("health").items() if key[2:4] == ("rank", name))
        for name in ("consumed", "processed", "capped")
    }
    sent = PER_S * len(FLOOD_S)
    assert sent - 110 <= total["capped"] <= sent - 90
    assert total["consumed"] == total["processed"] + total["capped"]
    assert _clicks(stage) - _clicks(quiet) == sent - total["capped"]
    assert abs(_loss(stage) - _loss(quiet)) < 0.01
    assert "flood" in alerts(
        [decode_outcomes(o.value) for o in stage.log.outputs("outcomes")], store, stage.now
    )


def test_the_same_flood_would_move_what_is_popular(tmp_path: Path) -> None:
    assert set(_popular(_run(tmp_path, 1e6))) & set(JUNK)
