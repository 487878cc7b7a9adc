"""The simulated shop as a client: what it publishes, and what it does with slates."""

from __future__ import annotations

import logging
from collections import Counter

import msgspec
import numpy as np
import pytest
from msgspec import structs

from stream.errors import Fatal, Retryable, SettingsError
from stream.log import Output
from stream.memory import MemoryLog
from stream.messages import (
    STRANGER,
    AnyEvent,
    Cart,
    Click,
    Impression,
    Item,
    ModelVersion,
    Position,
    Purchase,
    Remove,
    Slate,
    SlateItem,
    decode_event,
    decode_item,
    decode_outcomes,
    encode_json,
)
from stream.shop import Shop, ShopSettings, run
from stream.shop import client as client_module

START = 1_700_000_000_000
SMALL = ShopSettings(visitors=60, pages_per_s=6.0, items=80, page_size=5, bots=0.0)


def make_log() -> MemoryLog:
    counts = {"events": 2, "items": 1, "recommendations": 1, "outcomes": 1}
    return MemoryLog(counts, clock=lambda: START / 1000)


def make_shop(log: MemoryLog, settings: ShopSettings = SMALL) -> Shop:
    return Shop(settings, log.sink(), log.broadcast_source("recommendations", {}), START)


def live(shop: Shop, seconds: float) -> None:
    for step in range(1, round(seconds * 10) + 1):
        shop.step(step / 10)


def events(log: MemoryLog) -> list[AnyEvent]:
    return [decode_event(output.value) for output in log.outputs("events")]


def slate(user: str, items: list[str], offset: int = 1, arm: str = "fresh", slate_id: str = "s1") -> Output:
    value = Slate(
        user_id=user,
        slate_id=slate_id,
        ts=START,
        arm=arm,
        items=[SlateItem(item, 1.0, 0.1, 0.01, 0.001, "test") for item in items],
        model=ModelVersion("1.1", START),
        event=Position(0, offset, START),
        trace=f"trace-{slate_id}",
        expires=START + 10**9,
    )
    return Output("recommendations", user.encode(), encode_json(value))


def give(log: MemoryLog, *outputs: Output) -> None:
    log.append(list(outputs))


def test_same_seed_and_slates_give_same_records() -> None:
    logs = [make_log(), make_log()]
    for log in logs:
        give(log, slate("u000001", ["i000003", "i000004"]))
        live(make_shop(log), 20)
    for topic in ("events", "items", "outcomes"):
        assert logs[0].outputs(topic) == logs[1].outputs(topic)
    assert logs[0].outputs("events")


def test_other_seed_gives_other_events() -> None:
    logs = [make_log(), make_log()]
    for seed, log in enumerate(logs):
        live(make_shop(log, msgspec.structs.replace(SMALL, seed=seed)), 5)
    assert logs[0].outputs("events") != logs[1].outputs("events")


def test_event_ids_are_unique_within_and_across_runs() -> None:
    log = make_log()
    live(make_shop(log), 20)
    later = Shop(SMALL, log.sink(), log.broadcast_source("recommendations", {}), START + 20_000)
    live(later, 20)
    ids = [event.event_id for event in events(log)]
    assert None not in ids
    assert len(set(ids)) == len(ids)


def test_key_is_the_user_and_time_moves_on() -> None:
    log = make_log()
    live(make_shop(log), 30)
    for output in log.outputs("events"):
        assert output.key == decode_event(output.value).user_id.encode()
    times = [event.ts for event in events(make_single(30))]
    assert times == sorted(times)
    assert times[0] >= START
    assert times[-1] <= START + 30_000


def test_impressions_tell_the_context_of_their_visitor() -> None:
    shown = [event for event in events(make_single(30)) if isinstance(event, Impression)]
    told = {event.user_id: event.context for event in shown}
    assert [event.context for event in shown] == [told[event.user_id] for event in shown]
    assert {key for context in told.values() for key in context or {}} == {"country", "device"}
    assert len({str(context) for context in told.values()}) > 10


def make_single(seconds: float) -> MemoryLog:
    log = MemoryLog(dict.fromkeys(("events", "items", "recommendations", "outcomes"), 1), clock=lambda: 0.0)
    live(make_shop(log), seconds)
    return log


def test_pace_is_about_pages_per_s() -> None:
    log = make_log()
    shop = make_shop(log, ShopSettings(visitors=800, pages_per_s=40.0, items=50, bots=0.0))
    live(shop, 60)
    assert 0.85 * 2400 < shop.counts["impression"] < 1.15 * 2400


def test_whole_catalogue_is_published_before_any_event_names_it() -> None:
    log = make_log()
    live(make_shop(log), 60)
    published = {decode_item(o.value or b"").item_id for o in log.outputs("items")}
    shown = {i for e in events(log) if isinstance(e, Impression) for i in e.items}
    assert shown <= published
    assert len(published) > SMALL.items  # some were born


def test_retired_items_become_unavailable_and_are_shown_no_more() -> None:
    log = make_log()
    shop = make_shop(log)
    live(shop, 60)
    last: dict[str, Item] = {}
    for output in log.outputs("items"):
        item = decode_item(output.value or b"")
        last[item.item_id] = item
    retired = {item.item_id for item in last.values() if not item.available}
    assert retired
    assert {i.item_id for i in last.values() if i.available} == set(shop.world.ids)
    give(log, slate(STRANGER, sorted(retired)))
    before = len(log.outputs("events"))
    for step in range(601, 640):
        shop.step(step / 10)
    shown = {i for e in events(log)[before:] if isinstance(e, Impression) for i in e.items}
    assert not shown & retired


def test_page_shows_the_slate_and_tops_it_up() -> None:
    log = make_log()
    give(log, *(slate(f"u{n:06d}", ["i000003", "i000009"], arm="frozen") for n in range(60)))
    live(make_shop(log, msgspec.structs.replace(SMALL, drift=0.0)), 10)
    pages = [e for e in events(log) if isinstance(e, Impression)]
    assert pages
    for page in pages:
        assert page.items[:2] == ["i000003", "i000009"]
        assert len(set(page.items)) == SMALL.page_size == len(page.prices or [])
        assert (page.slate_id, page.trace, page.surface) == ("s1", "trace-s1", "home")
    assert arms(log) == {"frozen"}


def test_strangers_see_the_default_slate_under_no_arm() -> None:
    log = make_log()
    give(log, slate(STRANGER, ["i000003"], slate_id="d"))
    live(make_shop(log), 10)
    pages = [e for e in events(log) if isinstance(e, Impression)]
    assert {(p.items[0], p.slate_id) for p in pages} == {("i000003", "d")}
    assert arms(log) == {"none"}


def test_without_any_slate_pages_are_random_and_named() -> None:
    log = make_log()
    live(make_shop(log), 10)
    pages = [e for e in events(log) if isinstance(e, Impression)]
    assert len({p.slate_id for p in pages}) == len(pages)
    assert all(p.trace is None for p in pages)
    assert arms(log) == {"none"}


def test_of_two_slates_the_later_position_stands() -> None:
    log = make_log()
    everybody = [f"u{n:06d}" for n in range(60)]
    give(log, *(slate(u, ["i000001"], offset=7, slate_id="new") for u in everybody))
    give(log, *(slate(u, ["i000002"], offset=5, slate_id="old") for u in everybody))
    live(make_shop(log, msgspec.structs.replace(SMALL, drift=0.0)), 5)
    assert {e.slate_id for e in events(log) if isinstance(e, Impression)} == {"new"}


def test_tombstone_takes_the_slate_away() -> None:
    log = make_log()
    give(log, slate(STRANGER, ["i000003"]), Output("recommendations", STRANGER.encode(), None))
    live(make_shop(log), 5)
    assert all(e.trace is None for e in events(log) if isinstance(e, Impression))


def test_unreadable_slate_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    log = make_log()
    give(log, Output("recommendations", b"u", b"{"), slate(STRANGER, ["i000003"]))
    shop = make_shop(log)
    with caplog.at_level(logging.WARNING):
        live(shop, 5)
    assert shop.counts["unreadable"] == 1
    assert shop.counts["slates"] == 1
    assert "cannot be read" in caplog.text


def test_feedback_names_a_shown_list_and_follows_it() -> None:
    log = make_log()
    live(make_shop(log), 60)
    shown = {
        (e.user_id, e.slate_id, i): e.ts for e in events(log) if isinstance(e, Impression) for i in e.items
    }
    clicks = [e for e in events(log) if isinstance(e, Click)]
    assert clicks
    for click in clicks:
        delay = click.ts - shown[click.user_id, click.slate_id, click.item_id]  # type: ignore[operator]
        assert 500 <= delay <= 3_000


def test_carts_and_purchases_come_of_clicks() -> None:
    log = make_log()
    everything = ShopSettings(visitors=800, pages_per_s=80.0, items=100, bots=0.0)
    live(make_shop(log, everything), 90)
    kinds = Counter(type(e).__name__ for e in events(log))
    assert kinds["Click"] > kinds["Cart"] > kinds["Purchase"] > 0
    assert kinds["Remove"] > 0
    assert kinds["Search"] > 0
    assert kinds["Dismiss"] > 0


def test_whether_and_how_soon_a_cart_is_bought_are_settings() -> None:
    log = make_log()
    live(make_shop(log, structs.replace(SMALL, visitors=200, pages_per_s=20.0, buy=1.0, buy_s=2.0)), 60)
    carts = {(e.user_id, e.slate_id, e.item_id): e.ts for e in events(log) if isinstance(e, Cart)}
    bought = [e for e in events(log) if isinstance(e, Purchase)]
    delays = [e.ts - carts[e.user_id, e.slate_id, e.item_id] for e in bought]
    assert len(carts) > len(bought) > 20
    assert not any(isinstance(e, Remove) for e in events(log))
    assert 2_000 <= min(delays) < 3_000 < np.mean(delays) < 5_000


def test_bots_click_everything_and_count_for_no_truth() -> None:
    log = make_log()
    live(make_shop(log, msgspec.structs.replace(SMALL, bots=0.5, pages_per_s=1.0)), 120)
    truth = sum(
        sum(decode_outcomes(o.value or b"").cubes["truth"]["impressions"]) for o in log.outputs("outcomes")
    )
    pages = [e for e in events(log) if isinstance(e, Impression)]
    clicks = Counter(e.slate_id for e in events(log) if isinstance(e, Click))
    clicked_all = [p for p in pages if clicks[p.slate_id] == SMALL.page_size]
    assert clicked_all
    assert 0 < truth < len(pages) * SMALL.page_size


def test_truth_counts_every_page_once_and_best_is_best() -> None:
    log = make_log()
    live(make_shop(log), 30)
    rows = [decode_outcomes(o.value or b"") for o in log.outputs("outcomes")]
    assert all(r.source == "shop" and r.block == START for r in rows)
    assert [r.version for r in rows] == sorted({r.version for r in rows})
    pages = [e for e in events(log) if isinstance(e, Impression)]
    closed = [p for p in pages if p.ts < START + 30_000]
    counted = sum(sum(r.cubes["truth"]["impressions"]) for r in rows)
    assert counted == len(closed) * SMALL.page_size
    for r in rows:
        for expected, best in zip(r.cubes["truth"]["expected"], r.cubes["truth"]["best"], strict=True):
            assert 0 < expected <= best + 1e-6


def arms(log: MemoryLog) -> set[str]:
    rows = [decode_outcomes(o.value or b"").cubes["truth"]["arm"] for o in log.outputs("outcomes")]
    return {arm for row in rows for arm in row}


class Away:
    """A sink whose brokers are away for the first calls of `flush`; its queue is small."""

    def __init__(self, log: MemoryLog, failures: int) -> None:
        self._sink, self._failures, self._room = log.sink(), failures, 100

    def publish(self, output: Output) -> None:
        if self._failures > 0 and self._room == 0:
            self._failures -= 1
            raise Retryable("queue full")
        self._room -= 1
        self._sink.publish(output)

    def flush(self) -> None:
        if self._failures > 0:
            self._failures -= 1
            raise Retryable("brokers away")
        self._sink.flush()
        self._room = 100


def test_nothing_is_lost_while_the_brokers_are_away() -> None:
    log, calm = make_log(), make_log()
    shop = Shop(SMALL, Away(log, 3), log.broadcast_source("recommendations", {}), START)
    now, naps = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        naps.append(seconds)
        now += max(seconds, 0.1)

    run(shop, lambda: now, sleep, lambda: now > 10)
    make_shop(calm).step(9.95)
    assert naps[:3] == [1.0, 1.0, 1.0]
    published = [e.event_id for e in events(log)]
    assert {e.event_id for e in events(calm)} <= set(published)
    assert len(set(published)) == len(published)


def test_brokers_away_too_long_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_UNSENT", 100)
    log = make_log()
    shop = Shop(SMALL, Away(log, 10**6), log.broadcast_source("recommendations", {}), START)
    with pytest.raises(Retryable):
        shop.step(60)
    with pytest.raises(Fatal, match="too long"):
        shop.step(60)


def test_run_paces_by_the_clock() -> None:
    log = make_log()
    shop, now = make_shop(log), 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        assert 0 <= seconds <= 0.05
        now += 0.05

    run(shop, lambda: now, sleep, lambda: now >= 5)
    assert max(e.ts for e in events(log)) <= START + 5_000


def test_fast_run_follows_instead_of_sleeping() -> None:
    log = make_log()
    shop, followed = make_shop(log), 0

    def follow() -> None:
        nonlocal followed
        followed += 1

    def sleep(seconds: float) -> None:
        raise AssertionError("a fast run does not sleep")

    run(shop, lambda: 0.0, sleep, lambda: followed == 10, fast=True, follow=follow)
    assert max(e.ts for e in events(log)) > START + 9_000


@pytest.mark.parametrize("wrong", [{"visitors": 10}, {"items": 3}])
def test_impossible_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError):
        msgspec.structs.replace(SMALL, **wrong)
