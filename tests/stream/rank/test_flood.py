"""Who sends too much is not listened to; everybody else is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from models.batch import F
from stream.log import Output
from stream.messages import Click, Impression, decode_examples
from stream.rank.flood import MEMORY_MS
from stream.settings import Features
from tests.stream.rank.stage import SMALL, Stage, T

RATE = 2.0
MOST = int(RATE * MEMORY_MS / 1000)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    features = msgspec.structs.replace(SMALL.features, events_per_s=RATE)
    return Stage(tmp_path, msgspec.structs.replace(SMALL, features=features))


def clicks(count: int, user: str = "bot", ts: int = T, every_ms: int = 0) -> list[Click]:
    return [Click(user_id=user, ts=ts + i * every_ms, item_id=f"i{i % 3}") for i in range(count)]


def health(stage: Stage) -> Counter[str]:
    """Counters, added up over the seconds; to be asked once, for what has been asked is not told again."""
    columns, total = stage.counted("health"), Counter[str]()
    for counter, count in zip(columns["counter"], columns["count"], strict=True):
        total[counter] += count
    return total


def examples(outputs: list[Output]) -> int:
    """Clicks that train is told of."""
    told = [decode_examples(o.value) for o in outputs if o.topic == "examples"]
    return sum(len(one.act_offset) // 8 for one in told)


def test_a_page_that_brings_many_events_at_once_is_taken_whole(stage: Stage) -> None:
    assert examples(stage.feed(*clicks(MOST))) == MOST
    assert health(stage)["capped"] == 0


def test_what_is_beyond_is_counted_and_nothing_else(stage: Stage) -> None:
    outputs = stage.feed(*clicks(MOST + 30))
    assert examples(outputs) == MOST
    outputs = stage.feed(*clicks(10, ts=T + 1))
    assert outputs == []  # no slate either, though feedback is always answered
    [counted] = stage.rank.counts.take(0)
    assert sum(counted.cubes["ctr"]["clicks"]) == MOST
    health = counted.cubes["health"]
    found = dict(zip(health["counter"], health["count"], strict=True))
    assert (found["consumed"], found["processed"], found["capped"]) == (MOST + 40, MOST, 40)


def test_others_in_the_same_batch_are_not_touched(stage: Stage) -> None:
    shown = Impression(user_id="ann", ts=T, items=["a", "b"], prices=[1.0, 2.0])
    bought = Click(user_id="ann", ts=T + 5, item_id="b")
    outputs = stage.feed(*clicks(MOST), shown, *clicks(MOST), bought, *clicks(MOST))
    [told] = [decode_examples(o.value) for o in outputs if o.topic == "examples"]
    assert len(told.features) == 2 * F * 4
    assert len(told.label_list) // 8 == 1
    assert (told.first, told.last) == (0, 3 * MOST + 1)
    assert stage.history("ann", "clicks") == [(1,)]
    assert b"ann" in {o.key for o in outputs if o.topic == "recommendations"}


def test_a_steady_visitor_below_the_rate_is_always_heard(stage: Stage) -> None:
    stage.feed(*clicks(1000, every_ms=550))
    assert health(stage)["processed"] == 1000


def test_a_steady_flood_is_not_heard_again_before_it_pauses(stage: Stage) -> None:
    flood = clicks(1000, every_ms=100)  # ten a second
    assert 0 < examples(stage.feed(*flood[:500])) < 2 * MOST
    assert stage.feed(*flood[500:]) == []
    assert examples(stage.feed(*clicks(3, ts=T + 100_000 + 2 * int(MEMORY_MS)))) == 3


def test_events_out_of_order_do_not_reset_it(stage: Stage) -> None:
    stage.feed(*clicks(MOST), *clicks(5, ts=T - 3_600_000))
    assert health(stage)["capped"] == 5


def test_batches_cut_elsewhere_and_a_restart_decide_alike(stage: Stage, tmp_path: Path) -> None:
    flood = [c for ts in range(0, 60_000, 3_000) for c in clicks(11, ts=T + ts)]
    stage.feed(*flood)
    other = Stage(tmp_path / "other", stage.rank.settings)
    for k in range(0, len(flood), 7):
        other.feed(*flood[k : k + 7])
    assert health(other)["capped"] == health(stage)["capped"] > 0
    again = Stage(tmp_path / "again", stage.rank.settings)
    again.share.visitors.load(stage.share.visitors.state(only_touched=False))
    assert examples(again.feed(*clicks(20, ts=flood[-1].ts))) == 0


def test_people_are_far_from_the_default() -> None:
    assert Features().events_per_s * MEMORY_MS / 1000 >= 100
