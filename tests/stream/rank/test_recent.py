from __future__ import annotations

from stream.checkpoint import pack, unpack
from stream.rank.recent import Recent


def test_an_id_is_remembered_for_the_whole_window() -> None:
    for begin in range(0, 1000, 50):
        recent = Recent(window_ms=1000)
        recent.seen("first", 5000)
        recent.seen("a", 5000 + begin)
        for ts in range(5000 + begin, 6000 + begin, 100):
            recent.seen(f"other-{ts}", ts)
            assert recent.seen("a", ts)
        assert recent.seen("a", 6000 + begin)


def test_an_id_is_forgotten_after_twice_the_window() -> None:
    recent = Recent(window_ms=1000)
    recent.seen("a", 5000)
    assert recent.seen("b", 6500) is False
    assert recent.seen("c", 7600) is False
    assert recent.seen("a", 7600) is False


def test_a_long_silence_forgets_everything() -> None:
    recent = Recent(window_ms=1000)
    recent.seen("a", 5000)
    assert recent.seen("a", 7001) is False


def test_a_late_event_does_not_turn_time_back() -> None:
    recent = Recent(window_ms=1000)
    recent.seen("a", 50_000)
    assert recent.seen("b", 1000) is False
    assert recent.seen("b", 1000)
    assert recent.seen("a", 50_900)


def test_a_flood_is_bounded() -> None:
    recent = Recent(window_ms=1000, limit=100)
    for i in range(1000):
        recent.seen(f"id-{i}", 5000)
    assert len(recent.newer) <= 100
    assert len(recent.older) <= 100
    assert recent.seen("id-999", 5000)


def test_its_state_goes_on_alike() -> None:
    recent = Recent(window_ms=1000)
    for i in range(50):
        recent.seen(f"id-{i}", 5000 + 40 * i)
    restored = Recent(window_ms=1000)
    restored.load(unpack(pack(recent.state())))
    again = [(f"id-{i}", 7100) for i in range(50)]
    assert [restored.seen(*one) for one in again] == [recent.seen(*one) for one in again]
