"""The whole train role on a log in this process, with a clock that the test moves."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.batch import Array, F, Lists
from models.gate import Verdict
from models.learner import Learner
from models.losses import DELAYED
from models.policy import POLICIES
from models.quality import Histogram, auc
from models.served import Served
from models.statistics import CART, IMPRESSIONS_LONG
from models.trainer import Prediction, Trainer
from stream.checkpoint import Store, pack, unpack
from stream.errors import Fatal, Retryable
from stream.log import Output, Records
from stream.memory import MemoryLog
from stream.messages import CUBES, ModelUpdate, decode_model, decode_outcomes, encode_binary
from stream.runner import Runner
from stream.settings import Checkpoints, Settings, shape_of
from stream.train import session as session_module
from stream.train.role import Train, new_learner
from stream.train.session import BEFORE, BEHIND_S, LARGER, REPLAYS, Session
from tests.stream.test_counts import rows
from tests.stream.train.synthetic import T0, World, acts, labels, lists, message

Make = Callable[[Settings], Learner]
STEP_S = 0.1


class Stage:
    """A log, a clock, a world, and a train role on them."""

    def __init__(self, settings: Settings, make: Make) -> None:
        self.settings, self.make, self.now = settings, make, T0 / 1000
        self.shape = shape_of(settings)
        self.store = Store(Path(settings.checkpoints.path))
        counts = {"examples": 1, "model": 1, "outcomes": 1, "dead-letters": 1}
        self.log = MemoryLog(counts, lambda: self.now)
        self.world = World(self.shape)
        self.start()

    def start(self) -> None:
        """A new process; the old one, if there was one, is gone without a word."""
        self.role = Train(self.settings, self.store, make=self.make)
        self.runner = Runner(self.role, self.log, self.store, self.settings, lambda: self.now)

    def send(self, value: bytes) -> None:
        sink = self.log.sink()
        sink.publish(Output("examples", None, value, 0))
        sink.flush()

    def turns(self, count: int, per_turn: int = 10, flip: bool = False) -> None:
        for _ in range(count):
            self.now += STEP_S
            if per_turn:
                self.send(self.world.step(per_turn, int(self.now * 1000), flip))
            self.runner.once()

    def counted(self, cube: str) -> list[dict[str, Any]]:
        """Rows as a reader of the outcomes sees them."""
        folded = rows([decode_outcomes(o.value or b"") for o in self.log.outputs("outcomes")], cube)
        names = [*CUBES[cube].dims, *CUBES[cube].sums]
        return [dict(zip(names, (*key, *sums), strict=True)) for key, sums in folded.items()]

    def health(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for row in self.counted("health"):
            total[row["counter"]] += row["count"]
        return total

    def judged(self) -> Counter[str]:
        """Predictions that were judged, by task."""
        total: Counter[str] = Counter()
        for row in self.counted("quality"):
            total[row["task"]] += row["count"]
        return total

    def decisions(self) -> Counter[str]:
        return Counter(row["decision"] for row in self.counted("models"))

    def updates(self, slot: str = "fresh") -> list[ModelUpdate]:
        found = [decode_model(o.value or b"") for o in self.log.outputs("model")]
        return [update for update in found if update.slot == slot]

    def letters(self) -> list[Output]:
        return self.log.outputs("dead-letters")

    def served(self) -> Served:
        """What a rank has that starts now: the newest snapshot, and the deltas after it."""
        updates = self.updates()
        newest = max(i for i, update in enumerate(updates) if update.uri)
        served = Served.load(self.store.get(updates[newest].uri or "", updates[newest].checksum), self.shape)
        for update in updates[newest + 1 :]:
            served.apply(update.payload or b"")
        return served

    def quality(self, first: float, last: float, lag: str = "0") -> float:
        """Prequential AUC of clicks on lists shown within these seconds."""
        bins: Counter[int] = Counter()
        positives: Counter[int] = Counter()
        for row in self.counted("quality"):
            if (row["task"], row["lag"]) == ("click", lag) and first <= row["second"] - T0 / 1000 < last:
                bins[row["bin"]] += row["count"]
                positives[row["bin"]] += row["positives"]
        index = np.array(sorted(bins))
        columns = (np.array([c[b] for b in index.tolist()]) for c in (bins, positives))
        return auc(Histogram(index, *columns, np.zeros(len(index)), np.zeros(len(index))))


@pytest.fixture
def stage(settings: Settings, make: Make) -> Stage:
    return Stage(settings, make)


def test_predictions_get_better_as_the_stream_goes_on(stage: Stage) -> None:
    stage.turns(240)
    early, late = stage.quality(0, 4), stage.quality(12, 20)
    assert late > 0.75
    assert late > early + 0.1


def test_lists_that_nobody_saw_teach_an_order_and_count_as_nothing_else(stage: Stage) -> None:
    stage.world = World(stage.shape, unseen=True)
    stage.turns(280)
    stage.turns(60, per_turn=0)
    assert insight(stage, stage.served()) > 0.7
    assert (stage.health()["unseen"], stage.health()["lists"]) == (2800, 0)
    assert stage.counted("quality") == stage.counted("ranking") == []
    assert stage.served().rows["stats"][:, IMPRESSIONS_LONG].sum() == 0
    assert stage.decisions()["rejected"] == 0


def test_everything_is_counted_once(stage: Stage) -> None:
    stage.turns(80)
    stage.turns(60, per_turn=0)
    health = stage.health()
    assert (health["consumed"], health["lists"]) == (80, 800)
    assert health["labels"] == health["acts"] > 500
    assert health["unjoined"] == health["repeated"] == health["dead"] == 0
    assert sum(row["count"] for row in stage.counted("freshness")) == health["labels"]
    assert sum(r["count"] for r in stage.counted("quality") if r["lag"] == "0") == 3 * 8 * 800
    assert {r["gauge"]: r["value"] for r in stage.counted("gauges")}["buffer"] == 800


def test_a_label_is_learned_within_about_a_second(stage: Stage) -> None:
    stage.turns(100)
    assert max(row["upto"] for row in stage.counted("freshness")) <= 2 ** (10.25)


def test_who_follows_the_deltas_has_the_model_of_train(stage: Stage) -> None:
    stage.turns(60)
    learner, served = stage.role.session.learner, stage.served()  # type: ignore[union-attr]
    stage.role.session.publisher.judge()  # type: ignore[union-attr]
    payload = learner.delta(10**7)
    served.apply(payload)
    sample = stage.role.session.buffer.gather(np.arange(20))  # type: ignore[union-attr]
    assert learner.predict_with(served, sample).p == pytest.approx(learner.predict(sample).p, abs=1e-5)


class Spy(Learner):
    """Notes, by the features of a list's first item, what was said of it first and whether it was learned."""

    said: dict[bytes, Array]
    learned: set[bytes]

    def predict(self, lists: Lists) -> Prediction:
        prediction = super().predict(lists)
        for b, key in enumerate(_keys(lists)):
            if key not in self.said:
                assert key not in self.learned
                self.said[key] = prediction.p[lists.start[b] : lists.start[b + 1]]
        return prediction

    def learn(self, lists: Lists, *args: Any, **kwargs: Any) -> float:
        assert set(_keys(lists)) <= set(self.said)
        self.learned |= set(_keys(lists))
        return super().learn(lists, *args, **kwargs)


def _keys(lists: Lists) -> list[bytes]:
    return [row.tobytes() for row in lists.features[lists.start[:-1]]]


def test_a_list_is_predicted_before_anything_of_it_is_learned(settings: Settings, graphs: Path) -> None:
    spy = Spy(shape_of(settings), device="cpu", graphs=graphs)
    spy.said, spy.learned = {}, set()
    stage = Stage(settings, lambda _: spy)
    stage.turns(40)
    buffer = stage.role.session.buffer  # type: ignore[union-attr]
    numbers = np.arange(len(buffer))
    assert len(spy.learned) > 300
    first_said = np.concatenate([spy.said[key] for key in _keys(buffer.gather(numbers))])
    assert (buffer.guesses(numbers).p == first_said).all()


@pytest.mark.parametrize("delayed", DELAYED)
def test_levels_follow_each_list_once_by_what_was_said_of_it_at_arrival(
    settings: Settings, make: Make, delayed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = msgspec.structs.replace(settings.train, delayed=delayed)
    stage, asked = Stage(msgspec.structs.replace(settings, train=train), make), []

    def note(self: Trainer, said: Array, then: Array, due: Array, came: Array, *sold: Array) -> None:
        asked.append((due.sum(), (due * said).sum(0), came))

    monkeypatch.setattr(Trainer, "follow", note)
    stage.turns(60)
    stage.send(encode_binary(message(stage.shape, **labels([(0, 0, 1), (1, 2, 1), (1, 2, 2)]))))
    stage.turns(20)
    count, said, came = (np.sum(column, axis=0) for column in zip(*asked, strict=True))
    buffer = stage.role.session.buffer  # type: ignore[union-attr]
    numbers = np.arange(len(buffer))
    done = numbers[buffer.done(numbers)]
    lists = buffer.gather(done)
    assert count == len(lists.item)
    assert len(lists.item) > 1000
    happened = (lists.labels[:, None] >> np.arange(3) & 1).sum(0)
    assert came.tolist() == happened.tolist()
    assert happened[1:].tolist() == [2, 1]
    np.testing.assert_allclose(said, buffer.guesses(done).p.sum(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("delayed", "sold"), [("fnw", [2, 1]), ("fnc", [2, 1]), ("wait", [2, 1]), ("naive", [0, 0])]
)
def test_carts_count_as_bought_or_not_by_their_age_until_their_time_is_over(
    settings: Settings, make: Make, delayed: str, sold: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def note(self: Trainer, *what: Array) -> None:
        asked.append(what[4][CART].tolist())

    monkeypatch.setattr(Trainer, "follow", note)
    train = msgspec.structs.replace(settings.train, delayed=delayed)
    stage = Stage(msgspec.structs.replace(settings, train=train), make)
    stage.turns(30)
    stage.send(encode_binary(message(stage.shape, **labels([(0, 0, 1), (1, 2, 1), (1, 2, 2), (1, 3, 2)]))))
    stage.turns(15)
    carts, bought = asked[-1]
    assert bought == sold[1]
    assert carts == 0 if delayed == "naive" else 1 < carts < 2  # one of them may yet be bought
    stage.turns(100)  # what was foreseen of them has given way to what is known
    assert asked[-1] == sold


class Diary(Learner):
    """Notes of each step how many lists it had, and whether they were of the past."""

    steps: list[tuple[int, bool]]

    def learn(self, lists: Lists, *args: Any, **kwargs: Any) -> float:
        self.steps.append((len(lists), kwargs.get("again", False)))
        return super().learn(lists, *args, **kwargs)


def test_the_past_is_replayed_so_often_a_second_and_not_at_all_by_who_is_behind(
    settings: Settings, graphs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diary = Diary(shape_of(settings), device="cpu", graphs=graphs)
    diary.steps = []
    stage = Stage(settings, lambda _: diary)
    size = settings.train.lists_per_batch
    stage.turns(20, per_turn=6 * size)
    assert REPLAYS <= sum(past for _, past in diary.steps) <= 3 * REPLAYS
    assert max(lists for lists, _ in diary.steps) == size
    diary.steps.clear()
    monkeypatch.setattr("stream.train.session.STEPS", 1)
    stage.send(stage.world.step(40 * size, int(stage.now * 1000)))  # more than such a turn learns
    stage.turns(1, per_turn=0)
    diary.steps.clear()
    stage.now += BEHIND_S
    stage.turns(1, per_turn=0)
    assert LARGER * size >= diary.steps[0][0] > size
    assert not any(past for _, past in diary.steps)


def test_what_was_before_the_world_changed_is_not_replayed(settings: Settings, make: Make) -> None:
    roomy = msgspec.structs.replace(settings.train, buffer_lists=10_000, replay=1)
    stage = Stage(msgspec.structs.replace(settings, train=roomy), make)
    stage.turns(200, per_turn=16)
    session, rng = stage.role.session, np.random.default_rng(0)
    assert session is not None
    buffer, size = session.buffer, session.settings.lists_per_batch
    changed = buffer.head
    assert buffer.replay(500, rng).min() < changed / 2
    stage.turns(40, per_turn=16, flip=True)
    before = BEFORE * size + session.settings.click_wait_s / STEP_S * 16
    assert changed - before <= buffer.replay(2000, rng).min() < changed + 20 * size


@pytest.mark.parametrize("policy", POLICIES)
def test_settings_choose_the_policy(policy: str, settings: Settings) -> None:
    train = msgspec.structs.replace(settings.train, policy=policy)
    learner = new_learner(msgspec.structs.replace(settings, train=train))
    assert learner.trainer.policy.name == policy


def test_the_past_is_not_replayed_where_only_rows_learn(
    settings: Settings, graphs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.policy.WARM", 60)
    diary = Diary(shape_of(settings), device="cpu", policy="sparse", graphs=graphs)
    diary.steps = []
    stage = Stage(settings, lambda _: diary)
    stage.turns(60, per_turn=32)
    assert diary.trainer.rests
    assert sum(past for _, past in diary.steps[:60]) > 30
    diary.steps.clear()
    stage.turns(20, per_turn=32)
    assert len(diary.steps) > 10
    assert not any(past for _, past in diary.steps)
    shares = [row["value"] for row in stage.counted("gauges") if row["gauge"] == "dense"]
    assert (shares[0], shares[-1]) == (1.0, 0.0)


def test_a_label_joins_a_list_of_the_same_message(stage: Stage) -> None:
    columns = lists(stage.shape, [0], T0) | labels([(0, 1, 0)], T0 + 50)
    stage.send(encode_binary(message(stage.shape, last=1, **columns)))
    stage.turns(12, per_turn=0)
    assert stage.health()["unjoined"] == 0
    assert sum(row["lists"] for row in stage.counted("models")) == 1


def test_a_label_whose_list_is_gone_is_counted(stage: Stage) -> None:
    stage.send(encode_binary(message(stage.shape, **labels([(7, 1, 0), (8, 0, 0)]))))
    stage.turns(12, per_turn=0)
    assert stage.health()["unjoined"] == 2


def test_waits_end_though_nothing_comes_any_more(stage: Stage) -> None:
    stage.send(encode_binary(message(stage.shape, **lists(stage.shape, [0], int(stage.now * 1000)))))
    stage.turns(15, per_turn=0)
    assert sum(row["lists"] for row in stage.counted("models")) == 0
    stage.turns(20, per_turn=0)
    assert sum(row["lists"] for row in stage.counted("models")) == 1  # nobody clicked for two seconds
    assert stage.counted("quality") == []
    stage.turns(10, per_turn=0)
    assert stage.judged() == {"click": 3}  # after four
    stage.turns(15, per_turn=0)
    assert stage.judged() == {"click": 3, "cart": 3, "purchase": 3}  # after five


def test_a_bad_message_is_a_dead_letter_and_the_batch_goes_on(stage: Stage) -> None:
    stage.send(b"what?")
    stage.turns(12)
    [letter] = stage.letters()
    assert letter.value == b"what?"
    assert dict(letter.headers)["offset"] == b"0"
    health = stage.health()
    assert (health["dead"], health["consumed"]) == (1, 13)
    assert health["lists"] == 120


def insight(stage: Stage, served: Served) -> float:
    """How well a served model knows what visitors like, all else being equal: correlation with the truth."""
    item = np.arange(len(stage.world.appeal))
    row = served.table.lookup(item.astype(np.uint64) + 2).astype(np.int64)
    nobody = np.zeros((1, stage.shape.history), np.int64)
    age = np.full(nobody.shape, -1, np.float32)
    x = np.zeros((len(item), F), np.float32)
    score, _ = served.score(x, row, item % 7, np.zeros_like(item), nobody, nobody, age)
    return float(np.corrcoef(score, stage.world.appeal)[0, 1])


def test_poisoned_labels_do_not_reach_the_ranks(stage: Stage) -> None:
    stage.turns(280)
    good = insight(stage, stage.served())
    before = stage.decisions()["rejected"]
    stage.turns(60, per_turn=40, flip=True)
    assert stage.decisions()["rejected"] > before
    letter = json.loads(stage.letters()[-1].value or b"")
    assert letter["reason"] == "worse"
    assert letter["after"] > letter["before"]
    assert letter["count"] >= len(letter["lists"]) > 0
    assert dict(stage.letters()[-1].headers)["role"] == b"train"
    assert good > 0.7
    assert insight(stage, stage.served()) > good - 0.1


def test_lists_of_a_refused_version_that_still_wait_for_labels_are_learned_from_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.turns(40)
    session = stage.role.session
    assert session is not None
    buffer = session.buffer
    refused = Verdict(False, "worse", 0.1, 0.2, 0.0)
    monkeypatch.setattr(session.publisher._gate, "judge", lambda learned: refused)
    stage.turns(10)
    aside = buffer.column("aside", np.arange(buffer.head))
    assert 0 < aside.sum() < 200
    assert buffer.done(np.flatnonzero(aside)).all()
    monkeypatch.undo()
    waiting = np.flatnonzero(~buffer.done(np.arange(buffer.head)))
    stage.turns(25)
    assert buffer.done(waiting).all()


def test_a_partition_unlike_the_others_is_kept_out_of_all_that_is_learned_and_counted(
    settings: Settings, make: Make, tmp_path: Path
) -> None:
    learner = make(settings)
    session = Session(settings, Store(tmp_path / "two"), learner, "train", [0, 1], None)
    worlds = [World(session.shape, seed=p, partition=p) for p in (0, 1)]
    for turn in range(40):
        now = T0 / 1000 + turn * STEP_S
        for p, world in enumerate(worlds):
            value = world.step(10, int(now * 1000), flip=p == 1)
            session.process(Records("examples", p, [turn], [int(now * 1000)], [None], [value]), now)
        session.tick(now)
    assert session.alike.unlike == {1}
    popular = session.learner.items.stats.copy()
    value = worlds[1].step(10, int(now * 1000))
    session.process(Records("examples", 1, [40], [int(now * 1000)], [None], [value]), now)
    session.tick(now)
    assert (session.learner.items.stats == popular).all()
    buffer = session.buffer
    aside = np.flatnonzero(buffer.column("aside", np.arange(buffer.head)))
    assert len(aside) > 100
    assert (buffer.column("partition", aside) == 1).all()
    counted = session.counts.take(1)[0].cubes["health"]
    told = [n for c, n in zip(counted["counter"], counted["count"], strict=True) if c == "aside"]
    assert sum(told) > 0


def test_partitions_alike_are_learned_from_however_much_is_read_at_once_and_however_models_differ(
    settings: Settings, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = msgspec.structs.replace(settings, train=msgspec.structs.replace(settings.train, replay=0))
    session = Session(settings, Store(tmp_path / "four"), make(settings), "train", [0, 1, 2, 3], None)
    accepted = Verdict(True, "not worse", 0.1, 0.1, 0.0)
    monkeypatch.setattr(session.publisher._gate, "judge", lambda learned: accepted)
    worlds = [World(session.shape, seed=p, partition=p) for p in range(4)]
    for world in worlds:
        world.appeal -= 4.0  # most lists are without a click
    for turn in range(8):
        now, says = T0 / 1000 + 3.0 * turn, 0.02 * 2 ** (turn % 2)

        def predict(lists: Lists, says: float = says) -> Prediction:
            return Prediction(np.zeros(len(lists.item)), np.full((len(lists.item), 3), says))

        monkeypatch.setattr(session.learner, "predict", predict)
        times = [int(now * 1000) + ms for ms in range(-2900, 1, 100)]
        for p, world in enumerate(worlds):
            values: list[bytes | None] = [world.step(4, ms) for ms in times]
            offsets = list(range(turn * len(times), (turn + 1) * len(times)))
            session.process(Records("examples", p, offsets, times, [None] * len(times), values), now)
        session.tick(now)
        assert session.alike.unlike == frozenset()
    assert session.buffer.done(np.arange(900)).all()


def test_a_step_that_is_not_finite_sets_its_lists_aside(settings: Settings, make: Make) -> None:
    def broken(settings: Settings) -> Learner:
        learner = make(settings)
        learner.learn = lambda *_, **__: float("nan")  # type: ignore[method-assign]
        return learner

    stage = Stage(settings, broken)
    stage.turns(15)
    letter = json.loads(stage.letters()[0].value or b"")
    assert letter["reason"] == "loss not finite"
    assert sum(row["lists"] for row in stage.counted("models")) == 0
    assert stage.counted("freshness") == []


def test_the_frozen_model_is_named_once_and_judged_beside_the_fresh_one(stage: Stage) -> None:
    stage.turns(160)
    [frozen] = stage.updates("frozen")
    assert frozen.uri is not None
    stage.turns(60)
    lags = Counter(row["lag"] for row in stage.counted("quality"))
    assert lags["frozen"] > 0
    assert min(r["second"] for r in stage.counted("quality") if r["lag"] == "frozen") >= T0 // 1000 + 10
    assert {r["lag"] for r in stage.counted("ranking")} == {"0", "frozen"}
    stage.start()
    stage.turns(20)
    first, again = stage.updates("frozen")
    assert again == first  # named again for ranks that have not read it yet


def test_older_models_say_nothing_where_no_visitor_is_theirs(settings: Settings, make: Make) -> None:
    train = msgspec.structs.replace(settings.train, shadows=0)
    stage = Stage(msgspec.structs.replace(settings, train=train), make)
    stage.turns(220)
    assert stage.updates("frozen")
    assert {row["lag"] for row in stage.counted("quality")} == {"0"}


def test_lagged_models_are_judged_once_they_are_old_enough_and_less_well(
    settings: Settings, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "LAGS", {"short": 3_000, "long": 12_000})
    stage = Stage(settings, make)
    stage.turns(240)

    def first(lag: str) -> float:
        return min(r["second"] for r in stage.counted("quality") if r["lag"] == lag) - T0 / 1000

    assert 3 <= first("short") <= 6
    assert 12 <= first("long") <= 16
    assert stage.quality(12, 20, "0") > stage.quality(12, 20, "long") + 0.03
    stage.start()
    stage.turns(20)
    assert stage.role.session is not None
    assert stage.role.session.shadows.lagged["short"].model is None  # begins anew, and so says the log
    stage.turns(60)
    assert max(r["second"] for r in stage.counted("quality") if r["lag"] == "short") > T0 / 1000 + 26


def test_a_checkpoint_goes_with_every_snapshot(stage: Stage) -> None:
    stage.turns(70)
    whole = [u for u in stage.updates() if u.uri]
    assert len(whole) >= 2
    assert whole[1].n > 0
    [checkpoint] = stage.store.read("train", stage.role.schema, stage.log.identity("examples"))
    assert stage.log.progress("examples", "train")[0].offset == checkpoint.positions[0]
    assert checkpoint.newest_ts == whole[-1].trained_through


def send_acts(stage: Stage, first: int, count: int) -> None:
    offsets = list(range(first, first + count))
    columns = acts(stage.shape, offsets, [o % 60 + 2 for o in offsets])
    stage.send(encode_binary(message(stage.shape, first=first, last=offsets[-1], **columns)))


def test_without_lists_time_is_that_of_the_messages(stage: Stage) -> None:
    for turn in range(20):
        send_acts(stage, 10 * turn, 10)
        stage.turns(1, per_turn=0)
    versions = stage.counted("models")
    assert versions
    assert all(0 <= row["second"] - T0 / 1000 <= 2 for row in versions)


@pytest.mark.parametrize("roomy", [True, False])
def test_while_rows_are_free_a_first_act_earns_one_and_being_shown_once_does_not(
    stage: Stage, roomy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.admission.Admission.roomy", roomy)
    columns = acts(stage.shape, [1], [70]) | lists(stage.shape, [1], T0, [2])
    stage.send(encode_binary(message(stage.shape, first=1, last=1, **columns)))
    stage.turns(1, per_turn=0)
    assert stage.role.session is not None
    rows_of = stage.role.session.learner.table.lookup(np.array([70, 102, 103], np.uint64))
    assert (rows_of >= 0).tolist() == [roomy, False, False]


def test_a_snapshot_is_due_after_so_many_acts_too(settings: Settings, make: Make) -> None:
    checkpoints = msgspec.structs.replace(settings.checkpoints, events=50)
    stage = Stage(msgspec.structs.replace(settings, checkpoints=checkpoints), make)
    for turn in range(20):  # a fraction of the seconds after which one is due
        send_acts(stage, 20 * turn, 20)
        stage.turns(1, per_turn=0)
    assert stage.decisions()["snapshot"] == 1
    assert stage.log.progress("examples", "train")[0].offset >= 10


def test_a_restored_session_has_the_state_of_the_old_one_and_goes_on_alike(
    stage: Stage, tmp_path: Path
) -> None:
    stage.turns(57)
    old = stage.role.session
    assert old is not None
    state = unpack(pack(old.state()))
    new = Session(stage.settings, Store(tmp_path / "other"), stage.make(stage.settings), "train", [0], state)
    again = new.state()
    # a snapshot brings the learner's neighbour lists up to date; the rest of it is compared below
    assert {key for key in state if pack(again[key]) != pack(state[key])} <= {"learner"}
    for _ in range(25):
        stage.now += STEP_S
        value = stage.world.step(10, int(stage.now * 1000))
        offset = old.counts.state(0)["version"] + 1
        for session in (old, new):
            session.process(
                Records("examples", 0, [offset], [int(stage.now * 1000)], [None], [value]), stage.now
            )
            session.tick(stage.now)
    assert pack(new.buffer.state()) == pack(old.buffer.state())
    sample = old.buffer.gather(np.arange(old.buffer.tail, old.buffer.head))
    assert (new.learner.predict(sample).p == old.learner.predict(sample).p).all()


def test_two_runs_of_the_same_stream_give_the_same_bytes(
    settings: Settings, make: Make, tmp_path: Path
) -> None:
    paths = [Checkpoints(path=str(tmp_path / name)) for name in "ab"]
    stages = [Stage(msgspec.structs.replace(settings, checkpoints=path), make) for path in paths]
    for each in stages:
        each.turns(70)
    for topic in ("model", "outcomes"):
        assert stages[0].log.outputs(topic) == stages[1].log.outputs(topic)


def test_a_crash_counts_nothing_twice(stage: Stage) -> None:
    stage.turns(73)
    stage.start()
    stage.turns(40)
    stage.turns(60, per_turn=0)
    health = stage.health()
    assert health["consumed"] == 113
    assert health["lists"] == 1130
    assert [u.n for u in stage.updates() if u.epoch == 2][:3] == [0, 1, 2]


def test_while_the_store_is_full_versions_go_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.turns(5)

    def full(name: str, data: bytes) -> int:
        raise Retryable("no space left")

    monkeypatch.setattr(stage.store, "put", full)
    stage.turns(80)
    assert stage.health()["unsaved"] > 0
    assert stage.updates()[-1].n >= 7
    monkeypatch.undo()
    stage.turns(15)
    assert len([u for u in stage.updates() if u.uri]) == 2


def test_expired_messages_are_counted_as_lost(stage: Stage) -> None:
    stage.turns(12)
    for _ in range(5):
        stage.send(stage.world.step(5, int(stage.now * 1000)))
    stage.log.expire("examples", 0, 15)
    stage.turns(12)
    assert stage.health()["lost"] == 3


def test_without_partitions_there_is_nothing_to_do(settings: Settings, make: Make) -> None:
    role = Train(settings, Store(Path(settings.checkpoints.path)), make=make)
    assert role.units([]) == {}
    assert role.tick(1.0) == []
    with pytest.raises(Fatal, match="no partitions"):
        role.process(Records("examples", 0, [0], [0], [None], [b""]), 1.0, False)
