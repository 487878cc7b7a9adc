"""The run as a whole, against loops that anybody can check, on small streams."""

import itertools

import msgspec
import numpy as np
import pytest

from models.batch import FEATURE
from models.gate import Verdict
from models.lagged import Copy as Older
from stream.checkpoint import Store
from stream.errors import Fatal
from stream.evaluate.apart import TICK_S, TICKS, Here
from stream.evaluate.run import FRESH, Options, Run, evaluate, still, turns
from stream.log import Output
from stream.memory import MemoryLog
from stream.messages import Click, Impression, decode_event
from stream.rank.role import Rank
from stream.replay.formats import record
from stream.runner import Runner
from stream.train.role import Train
from stream.train.versions import Gate
from tests.stream.evaluate.streams import SMALL, START_MS, acts, entry, lists

OPTIONS = Options(turn=16, lag_ms=20_000)
HOUR_MS = 3_600_000


def run(records, path, options=OPTIONS, settings=SMALL):
    return evaluate(records, settings, options, path, Here(), timer=itertools.count().__next__)[0]


def naive(records, path):
    """MRR of every list by what train had guessed: rank and train as they are, each with its log."""
    now = {"rank": records[0].ts / 1000, "train": START_MS // 1000}
    settings, store = still(SMALL), Store(path)
    logs = {name: MemoryLog(settings.kafka.counts(), lambda: now["rank"]) for name in now}
    role = Train(settings, store)
    rank = Runner(Rank(settings, store), logs["rank"], store, settings, lambda: now["rank"])
    train = Runner(role, logs["train"], store, settings, lambda: now["train"])
    for runner in (rank, train):
        runner.start(patience=0.0)
    train.once(0.0)
    passed_on = {"examples": 0, "model": 0}
    for part in turns(records, 16, HOUR_MS):
        for each in part:
            now["rank"] = each.ts / 1000
            logs["rank"].append([Output("events", each.key, each.value)])
        rank.once(0.0)
        # the versions of the turn before are for the next one
        for topic, source, sink in (("model", "train", "rank"), ("examples", "rank", "train")):
            new = logs[source].outputs(topic)[passed_on[topic] :]
            logs[sink].append(new)
            passed_on[topic] += len(new)
        for _ in range(TICKS):
            now["train"] += TICK_S
            train.once(0.0)
    buffer = role.session.buffer
    events = [decode_event(each.value) for each in records]
    clicked = {e.slate_id: e.item_id for e in events if isinstance(e, Click)}
    reciprocal = []
    numbers = np.arange(buffer.tail, buffer.head)
    numbers = numbers[~buffer.column("unseen", numbers)]
    for number, shown in zip(numbers, (e for e in events if isinstance(e, Impression)), strict=True):
        scores = buffer.guesses(np.array([number])).score
        at = shown.items.index(clicked[shown.slate_id])
        reciprocal.append(1 / (1 + (scores > scores[at]).sum() + ((scores == scores[at]).sum() - 1) / 2))
    return reciprocal


def features_of(copy, records, path):
    """Features of the lists that a copy predicts: as the model has them, and as the copy does."""
    options = Options(turn=16, sync_ms=(("1s", 1_000), ("never", None)), linear=False)
    one = Run(records, still(SMALL), options, path, Here(), itertools.count().__next__)
    given, made = one._copies[copy].given, []

    def note(lists, offset):
        its = given(lists, offset)
        made.append((lists.features, its.features))
        return its

    one._copies[copy].given = note
    catalogue = [entry(START_MS, f"i{i}", category=f"c{i % 3}") for i in range(20)]
    for part in [catalogue, *turns(records, 16, HOUR_MS)]:
        one.turn(part)
    return [np.concatenate(features) for features in zip(*made, strict=True)]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    return run(lists(160), tmp_path_factory.mktemp("run"))


def test_figures_are_those_of_a_naive_loop(evaluated, tmp_path):
    reciprocal = naive(lists(160), tmp_path)
    figures = evaluated.ranking[FRESH]
    assert figures["all"].lists == 160
    assert figures["all"].mrr == pytest.approx(np.mean(reciprocal), abs=1e-12)
    assert figures["eighths 2-8"].mrr == pytest.approx(np.mean(reciprocal[20:]), abs=1e-12)
    assert figures["second half"].mrr == pytest.approx(np.mean(reciprocal[80:]), abs=1e-12)


def test_two_evaluations_give_the_same_bytes(evaluated, tmp_path):
    again = run(lists(160), tmp_path)
    assert msgspec.json.encode(again) == msgspec.json.encode(evaluated)


def test_displayed_order_is_judged_as_displayed(evaluated):
    events = [decode_event(each.value) for each in lists(160)]
    pairs = zip(events[::2], events[1::2], strict=True)
    expected = np.mean([1 / (1 + shown.items.index(click.item_id)) for shown, click in pairs])
    assert evaluated.ranking["displayed order"]["all"].mrr == pytest.approx(expected)


def test_probabilities_are_judged_on_every_item_shown(evaluated):
    for who in (FRESH, "river linear"):
        figures = evaluated.probability["click"][who]["all"]
        assert (figures.predictions, figures.positives) == (960, 160)
    assert set(evaluated.probability) == {"click"}


def test_only_the_labels_that_name_their_list_are_ranked(tmp_path):
    records = lists(60)
    # a click that names nothing joins the newest list all the same: its item is no target
    stray = decode_event(records[0].value)
    click = Click(user_id=stray.user_id, ts=START_MS + 200, item_id=stray.items[-1])
    other = lists(60)
    other.insert(2, records[1]._replace(ts=START_MS + 200, value=msgspec.json.encode(click)))
    with_stray = run(other, tmp_path / "a")
    without = run(records, tmp_path / "b")
    order = "displayed order"
    assert with_stray.ranking[order]["all"] == without.ranking[order]["all"]
    assert with_stray.probability["click"][FRESH]["all"].positives == 61


def test_a_stream_that_names_no_list_is_judged_by_what_rank_joins(tmp_path):
    figures = run(lists(60, named=False), tmp_path)
    assert figures.ranking["displayed order"]["all"].lists == 60


def test_copies_that_are_never_renewed_stay_behind(tmp_path):
    options = Options(turn=16, sync_ms=(("10s", 10_000), ("never", None)), linear=False)
    figures = run(lists(320), tmp_path, options)
    assert list(figures.sync) == ["10s", "never"]
    assert figures.sync["10s"] != figures.sync["never"]
    assert not set(figures.sync) & set(figures.ranking)


def test_a_copy_that_is_renewed_at_every_turn_is_the_model_that_rank_had(tmp_path):
    records, train = lists(160), Here()
    options = Options(turn=16, sync_ms=(("1s", 1_000),), linear=False)
    one = Run(records, still(SMALL), options, tmp_path, train, itertools.count().__next__)
    versions, expected = [], []
    for part in turns(records, 16, 1_000):
        before = train.learning.role.session.buffer.head
        one.turn(part)
        session = train.learning.role.session
        versions.append(Older(session.learner.shape, session.learner.graph(), session.learner.weights()))
        if part[0].ts >= records[len(records) // 2].ts:
            shown = session.buffer.gather(np.arange(before, session.buffer.head))
            expected.append(session.learner.predict_with(versions[-3], shown).score)  # trained two turns ago
    one.figures()
    said = np.concatenate([guess.score for guess in one._guesses._guesses["1s"]])
    expected = np.concatenate(expected)
    assert len(expected) > 6 * 70
    assert said[-len(expected) :] == pytest.approx(expected, abs=1e-5)


def test_such_a_copy_sees_lists_as_the_model_does(tmp_path):
    own, its = features_of("1s", lists(160, country=True), tmp_path)
    assert len(own) > 6 * 70
    assert np.array_equal(own, its)
    assert len(set(own[:, FEATURE["category_ctr"]].tolist())) > 3


def test_a_copy_that_is_not_renewed_counts_no_more_but_knows_what_the_visitor_did(tmp_path):
    own, its = features_of("never", lists(320), tmp_path)
    counted = FEATURE["popularity"]
    assert its[:, counted].max() <= own[:96, counted].max() < own[-96:, counted].max()
    for feature in ("own_events", "own_recency", "seen", "steps", "price"):
        assert np.array_equal(own[:, FEATURE[feature]], its[:, FEATURE[feature]])


def test_the_next_item_is_asked_for_before_it_is_touched(tmp_path):
    records = acts(800)
    figures = run(records, tmp_path)
    seen, asked = {}, 0
    for k, each in enumerate(records):
        event = decode_event(each.value)
        mine = seen.setdefault(event.user_id, set())
        asked += k % 10 == 0 and bool(mine) and event.item_id not in mine
        mine.add(event.item_id)
    assert figures.acts == 800
    assert figures.next_item[FRESH]["all"].asked == asked > 20


def test_what_always_follows_is_found_by_co_visitation(tmp_path):
    # asked at odd places: the second of a pair
    records = acts(800)[1:]
    figures = run(records, tmp_path)
    assert figures.next_item["co-visitation"]["second half"].hr > 0.9
    assert figures.recall["near alone"]["second half"] > 0.9
    assert figures.recall["all together"]["second half"] >= figures.recall["near"]["second half"]


def test_sources_together_recall_what_each_offers_first(tmp_path):
    figures = run(acts(400), tmp_path)
    parts = [by_part["all"] for name, by_part in figures.recall.items() if "alone" not in name]
    assert sum(parts[:-1]) == pytest.approx(figures.recall["all together"]["all"])


def test_what_is_said_of_an_item_is_told_after_the_events(tmp_path):
    told = []
    records = acts(40)
    timer = itertools.count().__next__
    one = Run([records[0], *records[1:]], still(SMALL), OPTIONS, tmp_path, Here(), timer)
    absorb = one.rank.absorb
    one.rank.absorb = lambda r, now: told.append((r.topic, one._following.acts)) or absorb(r, now)
    one.turn([entry(records[0].ts, "i1"), *records[:16]])
    assert ("items", 0) not in told
    one.turn(records[16:32])
    assert ("items", 16) in told


def test_the_log_does_not_grow(tmp_path):
    records = lists(200)
    one = Run(records, still(SMALL), OPTIONS, tmp_path, Here(), itertools.count().__next__)
    for part in turns(records, 16, HOUR_MS):
        one.turn(part)
    for topic in ("events", "examples", "outcomes"):
        assert one._log.outputs(topic) == []
    assert len(one._log.outputs("model")) < 4


def test_turns_are_cut_by_events_alone():
    records = [entry(START_MS, "a"), *acts(4), entry(START_MS, "b"), *acts(2)]
    assert [len(part) for part in turns(records, 2, HOUR_MS)] == [3, 3, 2]


def test_no_turn_is_longer_than_its_span():
    # one a minute
    assert [len(part) for part in turns(acts(6), 100, 180_000)] == [3, 3]
    assert Options(sync_ms=(("1m", 60_000), ("never", None))).span_ms == 60_000


def test_events_that_rank_refuses_are_counted(tmp_path):
    records = lists(20)
    records.insert(4, records[4]._replace(value=b'{"type":"click","user_id":""}'))
    figures = run(records, tmp_path)
    assert (figures.refused, figures.lists) == (1, 20)


def test_events_of_a_flood_are_left_out_and_counted(tmp_path):
    records = lists(20)
    clicks = [record(Click(user_id="bot", ts=records[-1].ts, item_id="i0")) for _ in range(130)]
    features = msgspec.structs.replace(SMALL.features, events_per_s=5.0)  # 100 at once
    settings = msgspec.structs.replace(SMALL, features=features)
    assert run(records + clicks, tmp_path, settings=settings).capped == 30


def test_lists_that_nobody_clicks_tell_nothing(tmp_path):
    shown = [each for each in lists(20) if b"impression" in each.value]
    figures = run(shown, tmp_path)
    assert figures.lists == 0
    assert figures.ranking[FRESH]["all"].mrr == 0.0
    assert figures.probability == {}


def test_batches_that_the_gate_turns_away_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(Gate, "judge", lambda self, learned: Verdict(False, "worse", 0.1, 0.2, 0.01))
    assert run(lists(60), tmp_path).set_aside > 0


def test_an_empty_stream_is_refused(tmp_path):
    with pytest.raises(Fatal, match="no events"):
        run([entry(START_MS, "a")], tmp_path)


def test_a_turn_of_more_lists_than_train_keeps_is_refused(tmp_path):
    settings = msgspec.structs.replace(SMALL, train=msgspec.structs.replace(SMALL.train, buffer_lists=4))
    with pytest.raises(Fatal, match="smaller --turn"):
        run(lists(20), tmp_path, settings=settings)


@pytest.mark.parametrize("turn", [0, 5000])
def test_a_turn_that_rank_would_cut_is_refused(tmp_path, turn):
    with pytest.raises(Fatal, match="a turn has 1 to 4096 events"):
        run(acts(4), tmp_path, Options(turn=turn))
