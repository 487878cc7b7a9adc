import numpy as np
import pytest

from stream.messages import Alert
from stream.monitor.detectors import Drift, Hush, Reading, broken_rules


def fed(drift, series, values, start=0):
    alerts = [drift.learn_one(series, start + i, float(v)) for i, v in enumerate(values)]
    return [alert for alert in alerts if alert]


def test_change_of_mean_is_reported_soon_after_it():
    rng = np.random.default_rng(0)
    drift = Drift("ctr_drift", "CTR of arm")
    assert fed(drift, "fresh", rng.normal(0.1, 0.02, 300)) == []
    first = fed(drift, "fresh", rng.normal(0.2, 0.02, 120), start=300)[0]
    assert 300_000 <= first.ts <= 340_000
    assert first.rule == "ctr_drift:fresh"
    assert first.values["before"] == pytest.approx(0.1, abs=0.02)
    assert first.values["after"] == pytest.approx(0.2, abs=0.03)


def test_steady_series_is_quiet():
    rng = np.random.default_rng(1)
    assert fed(Drift("ctr_drift", "CTR of arm"), "fresh", rng.normal(0.1, 0.03, 10_000)) == []


def test_series_that_stands_still_may_move_later():
    drift = Drift("ctr_drift", "CTR of arm")
    assert fed(drift, "fresh", [0.0] * 100) == []
    assert fed(drift, "fresh", [1.0] * 100)


def test_series_do_not_mix():
    rng = np.random.default_rng(2)
    drift = Drift("ctr_drift", "CTR of arm")
    for i in range(400):
        assert drift.learn_one("low", i, float(rng.normal(0.1, 0.01))) is None
        assert drift.learn_one("high", i, float(rng.normal(0.9, 0.01))) is None


@pytest.mark.parametrize(
    ("reading", "rules"),
    [
        (Reading(), []),
        (Reading(consumed=100, dead=1), []),
        (Reading(consumed=100, dead=2), ["dead_letters"]),
        (Reading(consumed=0, dead=1), ["dead_letters"]),
        (Reading(consumed=100, misrouted=1), ["misrouted"]),
        (Reading(consumed=100, capped=1), ["flood"]),
        (Reading(refused=1), ["examples_refused"]),
        (Reading(aside=1), ["partition_unlike_others"]),
        (Reading(rejected=4, versions=4), []),
        (Reading(rejected=14, versions=60), []),
        (Reading(rejected=15, versions=60), ["versions_rejected"]),
        (Reading(model_age_s=31.0, learning=True), ["model_stale"]),
        (Reading(model_age_s=31.0, learning=False), []),
        (Reading(model_age_s=30.0, learning=True), []),
        (Reading(model_age_s=None, learning=True), []),
        (Reading(slate_p99_ms=1000.0), []),
        (Reading(slate_p99_ms=1001.0), ["slow_slates"]),
    ],
)
def test_rules(reading, rules):
    assert [alert.rule for alert in broken_rules(reading, 5)] == rules


def test_alert_carries_its_time_and_numbers():
    [alert] = broken_rules(Reading(consumed=100, misrouted=3), 5)
    assert (alert.ts, alert.values) == (5, {"misrouted": 3})


def test_one_rule_does_not_hush_another():
    hush = Hush()
    alerts = [Alert(rule=rule, ts=0, severity="error", message="") for rule in ("a", "b", "a")]
    assert [alert.rule for alert in hush.let_through(alerts, 0)] == ["a", "b"]
    assert hush.let_through(alerts[:1], 30_000) == []
