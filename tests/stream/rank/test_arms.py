from __future__ import annotations

import msgspec
import numpy as np
import pytest

from stream.ids import hash_id
from stream.rank import arms as module
from stream.rank.arms import BUCKETS, Arms, Explored, Trace
from stream.settings import THREE_ARMS, Settings, SlateSettings

THREE = Settings(arms=THREE_ARMS)
EXPLORED = Explored(item=0xABC, pool=10, odds=2000, chosen=0b101)
USERS = np.array([hash_id(f"user-{i}") for i in range(30_000)], np.uint64)


def test_arms_get_their_shares() -> None:
    counts = np.bincount(Arms(THREE).of(USERS), minlength=3) / len(USERS)
    assert counts == pytest.approx([0.34, 0.33, 0.33], abs=0.02)


def test_an_arm_depends_on_the_user_alone() -> None:
    first, second = Arms(THREE).of(USERS), Arms(THREE).of(USERS[::-1])[::-1]
    assert first.tolist() == second.tolist()


def test_arms_and_buckets_are_independent() -> None:
    arm, bucket = Arms(THREE).of(USERS), USERS % np.uint64(BUCKETS)
    table = np.histogram2d(arm, bucket, [3, BUCKETS])[0]
    expected = table.sum(1)[:, None] * table.sum(0) / table.sum()
    assert ((table - expected) ** 2 / expected).sum() < 2 * 3 * BUCKETS


def test_a_trace_names_its_arm() -> None:
    arms = Arms(THREE)
    for code in range(4):
        assert arms.read(arms.trace(code, "3-17")) == Trace(code, None)
        assert arms.read(arms.trace(code, "3-17", EXPLORED)) == Trace(code, EXPLORED)


def test_a_trace_is_short() -> None:
    longest = Explored(item=(1 << 24) - 1, pool=1000, odds=10**6, chosen=(1 << 16) - 1)
    assert len(Arms(THREE).trace(2, "100-100000", longest)) < 64


def test_what_was_explored_means_nothing_to_other_arms() -> None:
    traces = [Arms(THREE).trace(0, "1-1", explored) for explored in (None, EXPLORED)]
    other = Arms(msgspec.structs.replace(THREE, arms=THREE_ARMS[::-1]))
    assert [other.read(trace) for trace in traces] == [Trace(2, None), None]


@pytest.mark.parametrize(
    "trace", ["", ".", "fresh", "fresh.1-1.", "fresh.1-1.0123456789ab", "x" * 1024, "\ud800"]
)
def test_a_trace_that_is_not_ours_names_none(trace: str) -> None:
    assert Arms(THREE).read(trace) is None


def test_a_trace_of_another_secret_or_another_text_is_not_ours() -> None:
    arms = Arms(THREE)
    other = Arms(msgspec.structs.replace(THREE, slate=SlateSettings(trace_secret="other")))
    assert other.read(arms.trace(0, "1-1")) is None
    assert arms.read(arms.trace(0, "1-1").replace("fresh", "frozen")) is None


def test_memory_of_traces_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CACHED_TRACES", 10)
    arms = Arms(THREE)
    for i in range(50):
        arms.read(f"trace-{i}")
    assert len(arms._read) <= 11
