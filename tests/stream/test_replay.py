"""Recorded streams: how each format becomes events, and how they are paced."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from stream.errors import Fatal, Retryable
from stream.log import Note, Output
from stream.memory import MemoryLog
from stream.messages import Cart, Click, Impression, Purchase, Remove, Search, decode_event, decode_item
from stream.replay import Flow, Recorded, Recording, newest_ms, read, refuse_old, replay
from stream.replay import play as play_module
from stream.replay.formats import record

T = 1_700_000_000_000

REES46 = """event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session
2023-11-14 22:13:21 UTC,cart,11,7,toys.bears,acme,3.50,u1,s1
2023-11-14 22:13:20 UTC,view,11,7,toys.bears,acme,3.50,u1,s1
2023-11-14 22:13:22 UTC,purchase,11,7,toys.bears,acme,3.00,u1,s1
2023-11-14 22:13:22 UTC,remove_from_cart,12,8,,,,u2,
"""

TRIVAGO = """user_id,session_id,timestamp,step,action_type,reference,platform,city,device,\
current_filters,impressions,prices
b,s2,1700000000,1,clickout item,22,DE,"Bonn, Germany",mobile,5 Star|Hotel,21|22|23,80|90|70
a,s1,1700000000,2,search for poi,Old Bridge,FR,Pau,desktop,,,
a,s1,1700000000,1,interaction item image,21,FR,Pau,desktop,,,
a,s1,1700000005,3,filter selection,Sort by Price,FR,Pau,desktop,Sort by Price,,
a,s1,1700000006,4,search for item,23,FR,Pau,desktop,,,
"""


def load(tmp_path: Path, kind: str, text: str, name: str = "file.csv") -> Recording:
    path = tmp_path / name
    path.write_text(text)
    return read(path, kind)


def decoded(recording: Recording) -> list[Any]:
    return [decode_event(r.value) for r in recording.records if r.topic == "events"]


def test_rees46_view_is_a_click_without_a_list_in_time_order(tmp_path: Path) -> None:
    recording = load(tmp_path, "rees46", REES46)
    click, cart, purchase, remove = decoded(recording)
    assert recording.broken == []
    assert (type(click), click.ts, click.item_id, click.price) == (Click, T, "11", 3.5)
    assert (click.slate_id, click.session_id, click.user_id) == (None, "s1", "u1")
    assert (type(cart), cart.ts) == (Cart, T + 1000)
    assert (type(purchase), purchase.price) == (Purchase, 3.0)
    assert (type(remove), remove.price, remove.session_id) == (Remove, None, None)


def test_rees46_item_is_published_before_its_event_and_again_when_it_changes(tmp_path: Path) -> None:
    recording = load(tmp_path, "rees46", REES46)
    assert [(r.topic, r.ts - T) for r in recording.records] == [
        ("items", 0),
        ("events", 0),
        ("events", 1000),
        ("items", 2000),
        ("events", 2000),
        ("items", 2000),
        ("events", 2000),
    ]
    items = [decode_item(r.value) for r in recording.records if r.topic == "items"]
    assert [(i.item_id, i.category, i.brand, i.price) for i in items] == [
        ("11", "toys.bears", "acme", 3.5),
        ("11", "toys.bears", "acme", 3.0),
        ("12", "8", "", None),
    ]


def test_tmall_fav_is_a_click(tmp_path: Path) -> None:
    text = (
        "timestamp,user_id,item_id,event\n1700000001,1,9,purchase\n1700000000,1,8,fav\n1700000000,2,7,cart\n"
    )
    events = decoded(load(tmp_path, "tmall", text))
    assert [(type(e), e.user_id, e.item_id, e.ts) for e in events] == [
        (Click, "1", "8", T),
        (Cart, "2", "7", T),
        (Purchase, "1", "9", T + 1000),
    ]


def test_trivago_clickout_is_a_list_and_a_click_that_names_it(tmp_path: Path) -> None:
    events = decoded(load(tmp_path, "trivago", TRIVAGO))
    shown = next(e for e in events if isinstance(e, Impression))
    click = events[events.index(shown) + 1]
    assert (shown.items, shown.prices, shown.slate_id) == (["21", "22", "23"], [80.0, 90.0, 70.0], "b-s2-1")
    assert (type(click), click.item_id, click.slate_id, click.price) == (Click, "22", "b-s2-1", 90.0)
    assert shown.ts == click.ts == T
    assert shown.event_id != click.event_id
    assert shown.context == {
        "platform": "DE",
        "city": "Bonn, Germany",
        "device": "mobile",
        "action": "clickout item",
        "filters": "5 Star|Hotel",
    }


def test_trivago_ties_go_by_user_and_step(tmp_path: Path) -> None:
    events = decoded(load(tmp_path, "trivago", TRIVAGO))
    assert [(type(e), e.user_id) for e in events] == [
        (Click, "a"),
        (Search, "a"),
        (Impression, "b"),
        (Click, "b"),
        (Search, "a"),
        (Click, "a"),
    ]
    assert events[0].slate_id is None
    assert (events[1].query, events[4].query, events[5].item_id) == ("Old Bridge", "Sort by Price", "23")


def test_trivago_click_outside_its_list_is_still_a_click(tmp_path: Path) -> None:
    click = decoded(load(tmp_path, "trivago", TRIVAGO.replace("item,22,", "item,99,")))[3]
    assert (click.item_id, click.price) == ("99", None)


def test_other_ties_keep_the_order_of_the_file(tmp_path: Path) -> None:
    rows = "".join(f"1700000000,{user},1,fav\n" for user in (3, 1, 2))
    events = decoded(load(tmp_path, "tmall", "timestamp,user_id,item_id,event\n" + rows))
    assert [e.user_id for e in events] == ["3", "1", "2"]


@pytest.mark.parametrize("name", ["e.jsonl", "e.jsonl.gz"])
def test_own_events_keep_what_they_say_and_get_an_id(tmp_path: Path, name: str) -> None:
    lines = [
        {"type": "click", "user_id": "u", "item_id": "i", "ts": T + 1},
        {"type": "impression", "user_id": "u", "items": ["i"], "ts": T, "event_id": "mine"},
    ]
    data = "\n\n".join(json.dumps(line) for line in lines).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    events = decoded(read(path, "events"))
    assert [(e.ts, e.event_id) for e in events] == [(T, "mine"), (T + 1, f"{name}:1")]


def test_own_catalogue_entries_have_the_time_at_which_they_were_told(tmp_path: Path) -> None:
    lines = [
        {"type": "click", "user_id": "u", "item_id": "i", "ts": T + 1},
        {"item_id": "i", "price": 2, "ts": T},
        {"item_id": "i", "user_id": "u", "ts": T},  # an event whose type was forgotten
        {"item_id": "j"},
        {"item_id": "k", "price": -2, "ts": T},
    ]
    path = tmp_path / "e.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    recording = read(path, "events")
    assert [(r.ts, r.topic, r.key) for r in recording.records] == [
        (T, "items", b"i"),
        (T + 1, "events", b"u"),
    ]
    assert [b.line for b in recording.broken] == [3, 4, 5]


def test_reading_a_file_twice_gives_the_same_records(tmp_path: Path) -> None:
    assert load(tmp_path, "trivago", TRIVAGO) == load(tmp_path, "trivago", TRIVAGO)


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        ("tmall", "x,1,9,fav", "invalid literal"),
        ("tmall", "1700000000,1,9,like", "unknown event 'like'"),
        ("tmall", "1700000000,,9,fav", "length >= 1"),
        ("tmall", "17,1,9,fav", "before 2000"),
        ("tmall", "1700000000,1,9", "as many columns"),
        ("tmall", "1700000000,1,9,fav,more", "as many columns"),
        ("tmall", "1700000000,\udcff,9,fav", "surrogates"),
        ("rees46", "2023-11-14 22:13:20 CET,view,1,7,,,1,u,s", "does not end in UTC"),
        ("rees46", "yesterday,view,1,7,,,1,u,s", "not enough values"),
        ("rees46", "2023-11-14 22:13:20 UTC,view,1,7,,,-1,u,s", ">= 0"),
        ("trivago", "a,s,1700000000,1,clickout item,2,,,,,1|2,9", "2 impressions with 1 prices"),
        ("trivago", "a,s,1700000000,1,clickout item,2,,,,,,", "could not convert"),
        ("trivago", "a,s,1700000000,1,interaction item info,unknown,,,,,,", "names no item"),
        ("trivago", "a,s,1700000000,1,dance,2,,,,,,", "unknown action 'dance'"),
    ],
)
def test_broken_row_is_reported_and_the_rest_read(tmp_path: Path, kind: str, row: str, reason: str) -> None:
    heads = {"tmall": "timestamp,user_id,item_id,event", "rees46": REES46, "trivago": TRIVAGO}
    good = {
        "tmall": "1700000000,1,9,fav",
        "rees46": REES46.splitlines()[1],
        "trivago": TRIVAGO.splitlines()[2],
    }
    path = tmp_path / "f"
    lines = [heads[kind].splitlines()[0], row, good[kind], ""]
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    recording = read(path, kind)
    assert [b.line for b in recording.broken] == [2]
    assert reason in recording.broken[0].reason
    assert len(decoded(recording)) == 1


def test_broken_line_of_own_events_is_reported(tmp_path: Path) -> None:
    good = '{"type":"click","user_id":"u","item_id":"i","ts":1700000000000}'
    path = tmp_path / "f"
    path.write_bytes(f'{{\n{good}\n{{"type":"dance"}}\n'.encode() + b'"\xff"\n')
    recording = read(path, "events")
    assert [b.line for b in recording.broken] == [1, 3, 4]
    assert len(recording.records) == 1


def test_file_that_is_not_what_it_should_be_is_fatal(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match="unknown format"):
        load(tmp_path, "csv", "")
    with pytest.raises(Fatal, match="no column timestamp"):
        load(tmp_path, "tmall", REES46)
    with pytest.raises(Fatal, match="no column"):
        load(tmp_path, "tmall", "")
    with pytest.raises(Fatal, match="cannot be read"):
        read(tmp_path / "absent", "tmall")
    with pytest.raises(Fatal, match="cannot be read"):
        load(tmp_path, "tmall", "not gzip", "f.gz")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(REES46.encode())[:60])
    with pytest.raises(Fatal, match="cannot be read"):
        read(tmp_path / "cut.gz", "rees46")


def test_window_counts_the_items_of_lists(tmp_path: Path) -> None:
    short = load(tmp_path, "trivago", TRIVAGO)
    assert short.window() == 40_000 * 6 // 8
    assert Recording([], []).window() >= 1


def make(n: int, step_ms: int = 1000) -> list[Recorded]:
    return [
        record(Click(user_id=f"u{i % 7}", item_id="i", ts=T + i * step_ms, event_id=str(i))) for i in range(n)
    ]


def test_older_than_the_stack_is_refused_with_both_times() -> None:
    with pytest.raises(Fatal, match=r"begins at 2023-11-14 22:13:20 UTC.*22:13:31.*--force"):
        refuse_old(make(3), T + 11_000, tolerance_ms=10_000)
    refuse_old(make(3), T + 10_000, tolerance_ms=10_000)
    refuse_old(make(3), 0, tolerance_ms=0)
    refuse_old([], T, tolerance_ms=0)


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


class Recorder:
    """A sink that remembers when each record was acknowledged; away for the first flushes."""

    def __init__(self, time: Time, away: int = 0) -> None:
        self.time, self.away = time, away
        self.queue: list[Output] = []
        self.sent: list[tuple[float, Output]] = []

    def publish(self, output: Output) -> None:
        self.queue.append(output)

    def flush(self) -> None:
        if self.away > 0:
            self.away -= 1
            raise Retryable("broker away")
        queue, self.queue = self.queue, []
        self.sent += [(self.time.now, output) for output in queue]


def play(records: list[Recorded], sink: Recorder, speed: float | None) -> tuple[list[int], int]:
    told: list[int] = []
    paces = [0]

    def pace() -> None:
        paces[0] += 1

    replay(
        records,
        sink,
        progress=told.append,
        pace=pace,
        speed=speed,
        clock=sink.time.clock,
        sleep=sink.time.sleep,
    )
    return told, paces[0]


def test_recorded_speed_is_kept_times_the_factor() -> None:
    sink = Recorder(Time())
    records = make(61)
    play(records, sink, speed=10.0)
    assert [output.value for _, output in sink.sent] == [r.value for r in records]
    for i, (at, _) in enumerate(sink.sent):
        assert at == pytest.approx(i / 10, abs=play_module.TICK_S)


def test_without_a_speed_nothing_sleeps_and_every_chunk_is_paced() -> None:
    sink = Recorder(Time())
    told, paces = play(make(2_500), sink, speed=None)
    assert sink.time.now == 0
    assert told == [1_000, 2_000, 2_500]
    assert paces == 3


def test_after_a_fault_nothing_is_skipped_or_sent_twice() -> None:
    sink = Recorder(Time(), away=3)
    records = make(1_500)
    play(records, sink, speed=None)
    assert [output.value for _, output in sink.sent] == [r.value for r in records]
    assert sink.time.now == pytest.approx(0.5 + 1 + 2)


def test_broker_that_stays_away_ends_the_replay() -> None:
    with pytest.raises(Retryable, match="broker away"):
        play(make(3), Recorder(Time(), away=100), speed=None)


class Roles:
    """Stands in for rank and train: each sleep lets them take one more step."""

    def __init__(self, log: MemoryLog, rank_step: int, train_step: int) -> None:
        self.log, self.now = log, 0.0
        self.steps = {"rank": ("events", rank_step), "train": ("examples", train_step)}
        self.kept: dict[tuple[str, int], int] = {}
        self.sources = {
            role: log.group_source(topic, role, lambda s, p: {}, lambda p: None)
            for role, (topic, _) in self.steps.items()
        }
        for source in self.sources.values():
            source.poll(1, 0)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for role, (topic, step) in self.steps.items():
            for p, end in self.log.ends(topic).items():
                before = self.kept.get((role, p), 0)
                after = min(end, before + step)
                self.kept[role, p] = after
                note = Note(after, T).write() if role == "rank" else ""
                self.sources[role].commit({p: end if role == "rank" else after}, {p: note})
                if role == "rank":
                    self.log.append([Output("examples", None, b"x", p)] * (after - before))


def flowing(rank_step: int, train_step: int, window: int) -> tuple[MemoryLog, Roles, Flow]:
    log = MemoryLog({"events": 2, "examples": 2}, clock=lambda: T / 1000)
    roles = Roles(log, rank_step, train_step)
    return log, roles, Flow(log, roles.clock, roles.sleep, window, timeout_s=5.0)


def publish(log: MemoryLog, n: int) -> None:
    log.append([Output("events", r.key, r.value) for r in make(n)])


def test_within_the_window_nothing_waits() -> None:
    log, roles, flow = flowing(0, 0, window=100)
    publish(log, 100)
    flow.wait()
    assert roles.now == 0
    assert flow.outstanding == 100


def test_beyond_the_window_it_waits_until_train_has_kept_enough() -> None:
    log, roles, flow = flowing(10, 5, window=100)
    for _ in range(5):
        publish(log, 60)
        flow.wait()
        assert flow.outstanding <= 100
        learned = sum(roles.kept.get(("train", p), 0) for p in (0, 1))
        assert sum(log.ends("events").values()) - learned <= 100
    flow.drain()
    assert flow.outstanding == 0
    assert {p: roles.kept["train", p] for p in (0, 1)} == log.ends("examples")


def test_what_was_there_before_is_not_waited_for() -> None:
    log = MemoryLog({"events": 2, "examples": 2}, clock=lambda: T / 1000)
    publish(log, 500)
    roles = Roles(log, 0, 0)
    flow = Flow(log, roles.clock, roles.sleep, 100)
    flow.wait()
    assert flow.outstanding == 0


@pytest.mark.parametrize(("rank_step", "role", "topic"), [(0, "rank", "events"), (100, "train", "examples")])
def test_role_that_does_not_move_is_named(rank_step: int, role: str, topic: str) -> None:
    log, roles, flow = flowing(rank_step, 0, window=10)
    publish(log, 50)
    with pytest.raises(Fatal, match=rf"{role} has not moved for 5 s.*{topic}\[\d\].*liverank run {role}"):
        flow.wait()
    assert roles.now == pytest.approx(5.0, abs=0.3)


def test_a_commit_is_no_checkpoint() -> None:
    log, _, flow = flowing(0, 100, window=10)  # rank commits the end but its note says that nothing is kept
    publish(log, 50)
    with pytest.raises(Fatal, match="rank has not moved"):
        flow.wait()


def test_newest_time_is_read_from_rank_notes() -> None:
    log, roles, _ = flowing(10, 10, window=10)
    assert newest_ms(log) == 0
    publish(log, 5)
    roles.sleep(0.1)
    assert newest_ms(log) == T


def test_replay_through_the_flow_reaches_the_log_in_order() -> None:
    log, roles, flow = flowing(200, 100, window=1_500)
    records = make(5_000)
    replay(
        records,
        log.sink(),
        progress=lambda done: None,
        pace=flow.wait,
        speed=None,
        clock=roles.clock,
        sleep=roles.sleep,
    )
    flow.drain()
    by_user: dict[bytes | None, list[bytes | None]] = {}
    for output in log.outputs("events"):
        by_user.setdefault(output.key, []).append(output.value)
    for key, values in by_user.items():
        assert values == [r.value for r in records if r.key == key]
