import pytest

from stream.monitor.watch import CTR, SETTLE_S, Series, Watch, log_loss
from tests.conftest import T0


class Recorder:
    """In place of a drift detector: remembers what it is fed."""

    def __init__(self):
        self.fed = []

    def learn_one(self, series, second, value):
        self.fed.append((series, second - T0, value))
        return (series, second - T0)


def ctr(*seconds, clicks=1):
    rows = [f"{s} fresh 1 10 {clicks + s % 2}" for s in seconds]
    return "\n".join(["second arm position impressions clicks", *rows])


def test_second_is_fed_once_and_only_when_complete(store, put):
    recorder = Recorder()
    series = Series(CTR, recorder)
    put("ctr", ctr(0, 1, 6))
    assert series.look(store, T0 + 100) == []
    assert recorder.fed == [("fresh", 0, 0.1), ("fresh", 1, 0.2)]
    put("ctr", ctr(6 + SETTLE_S, clicks=5))
    assert series.look(store, T0 + 100) == [("fresh", 6)]
    assert series.look(store, T0 + 100) == []
    assert recorder.fed[2:] == [("fresh", 6, 0.1)]


def test_event_ahead_of_the_clock_does_not_complete_seconds(store, put):
    recorder = Recorder()
    put("ctr", ctr(0, 200))
    Series(CTR, recorder).look(store, T0 + 3)
    assert recorder.fed == []


def test_feedback_without_a_list_is_not_in_the_rate(store, put):
    recorder = Recorder()
    put("ctr", "second arm position impressions clicks\n 0 fresh 1 10 1\n 0 fresh 0 0 9\n 9 fresh 1 10 1")
    Series(CTR, recorder).look(store, T0 + 100)
    assert recorder.fed == [("fresh", 0, 0.1)]


def test_log_loss_is_that_of_the_newest_model(store, put):
    recorder = Recorder()
    put(
        "quality",
        """
        second task lag bin count loss
        0 click 0 0 1 0.5
        0 click 0 1 3 0.5
        0 click frozen 0 1 9
        9 click 0 0 1 1
        """,
    )
    Series(log_loss("click"), recorder).look(store, T0 + 100)
    assert recorder.fed == [("click", 0, 0.25)]


def test_purchases_that_are_judged_long_after_clicks_are_looked_at_too(store, put):
    clicks, purchases = Recorder(), Recorder()
    series = [Series(log_loss("click"), clicks), Series(log_loss("purchase"), purchases)]
    rows = "second task lag bin count loss"
    put("quality", rows + "\n 100 click 0 0 1 0.5\n 109 click 0 0 1 0.5")
    for each in series:
        each.look(store, T0 + 110)
    put("quality", rows + "\n 100 purchase 0 0 1 0.5\n 109 purchase 0 0 1 0.5", block=1)
    for each in series:
        each.look(store, T0 + 710)
    assert (clicks.fed, purchases.fed) == ([("click", 100, 0.5)], [("purchase", 100, 0.5)])


def test_nothing_stored_is_nothing_to_say(store):
    assert Watch(store).look(T0 * 1000) == []


def test_reading_is_of_the_last_minute(store, put):
    put(
        "health",
        """
        second role counter count
        0 rank consumed 1000
        100 rank consumed 10
        100 rank dead 2
        100 rank misrouted 1
        100 rank capped 5
        100 train consumed 7
        100 train dead 3
        100 train aside 4
        """,
    )
    put(
        "models",
        "second epoch n decision\n 40 1 0 rejected\n 50 1 1 published\n 99 1 2 rejected",
    )
    put("freshness", "second kind upto count\n 0 event_to_slate 9000 9\n 100 event_to_slate 20 9")
    reading = Watch(store).read(T0 + 110)
    assert (reading.consumed, reading.dead, reading.misrouted) == (10, 2, 1)
    assert (reading.capped, reading.refused, reading.aside) == (5, 3, 4)
    assert (reading.rejected, reading.versions) == (1, 1)
    assert (reading.learning, reading.model_age_s, reading.slate_p99_ms) == (True, 60.0, 20.0)


def test_broken_rule_speaks_once_a_minute(store, put):
    put("health", "second role counter count\n 0 rank misrouted 1")
    watch = Watch(store)
    assert [alert.rule for alert in watch.look((T0 + 1) * 1000)] == ["misrouted"]
    assert watch.look((T0 + 2) * 1000) == []


def test_drop_in_ctr_is_an_alert(store, put):
    put("ctr", ctr(*range(200), clicks=4))
    watch = Watch(store)
    assert watch.look((T0 + 300) * 1000) == []
    put("ctr", ctr(*range(200, 400), clicks=1))
    [alert] = watch.look((T0 + 500) * 1000)
    assert alert.rule == "ctr_drift:fresh"
    assert alert.values["before"] == pytest.approx(0.45, abs=0.1)
    assert alert.values["after"] == pytest.approx(0.15, abs=0.1)
