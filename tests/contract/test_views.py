"""Every view on the real engine, against numbers worked out by hand."""

import math
from datetime import UTC, datetime

import pytest

from stream.messages import Alert
from tests.conftest import T0

MINUTE = datetime.fromtimestamp(T0, UTC)


def one(rows):
    assert len(rows) == 1, rows
    return rows[0]


def close(row, **expected):
    for name, value in expected.items():
        assert row[name] == (value if value is None else pytest.approx(value)), name


def test_newest_version_of_a_row_stands(store, put):
    put("ctr", "second arm position impressions clicks\n 0 fresh 1 5 1", version=10)
    put("ctr", "second arm position impressions clicks\n 0 fresh 1 9 2", version=20)
    put("ctr", "second arm position impressions clicks\n 0 fresh 1 5 1", version=10)
    close(one(store.query("SELECT * FROM {db}.ctr")), impressions=9, clicks=2)


def test_blocks_partitions_and_sources_add_up(store, put):
    row = "second arm position impressions clicks\n 0 fresh 1 10 1"
    put("ctr", row)
    put("ctr", row, block=1)
    put("ctr", row, partition=1)
    put("ctr", row, source="another")
    close(one(store.query("SELECT * FROM {db}.ctr")), impressions=40, clicks=4, ctr=0.1)


def test_ctr_has_rates_per_second_arm_surface_and_position(store, put):
    put(
        "ctr",
        """
        second arm  surface position impressions clicks carts purchases revenue
        0     fresh  home   1        20          4      2     1         9.5
        0     fresh  home   2        10          0      0     0         0
        1     fresh  home   0        0           1      0     0         0
        """,
    )
    first, second, unlisted = store.query("SELECT * FROM {db}.ctr ORDER BY time, position")
    assert first["time"] == MINUTE
    close(first, ctr=0.2, add_to_cart_rate=0.5, cvr=0.25, revenue=9.5)
    close(second, ctr=0.0, add_to_cart_rate=None, cvr=None)
    close(unlisted, ctr=None, clicks=1)


def test_items_add_up_per_minute(store, put):
    put("items", "second arm item_id impressions clicks\n 0 fresh a 3 1\n 59 fresh a 2 0\n 60 fresh a 1 0")
    rows = store.query("SELECT * FROM {db}.items ORDER BY time")
    assert [(r["item_id"], r["impressions"], r["clicks"]) for r in rows] == [("a", 5, 1), ("a", 1, 0)]


def test_diversity_of_impressions(store, put):
    put("diversity", "second arm lists items pairs apart surprise young\n 5 fresh 4 8 12 9 24 2")
    put("items", "second arm item_id impressions\n 5 fresh a 1\n 5 fresh b 3\n 5 fresh c 0\n 5 other d 1")
    row = one(store.query("SELECT * FROM {db}.diversity"))
    close(row, intra_list_distance=0.75, novelty=3.0, young=0.25, items_shown=2, coverage=2 / 4)
    close(row, entropy=-(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75)))
    # two items with shares 1/4 and 3/4: the Lorenz curve leaves half of (3/4 - 1/4)
    close(row, gini=0.25)


def test_coverage_is_of_the_catalogue_that_rank_reports(store, put):
    put("diversity", "second arm lists items\n 5 fresh 1 2")
    put("items", "second arm item_id impressions\n 5 fresh a 1\n 5 fresh b 1")
    put("gauges", "second role gauge value\n 1 rank catalogue 999\n 2 rank catalogue 50")
    close(one(store.query("SELECT * FROM {db}.diversity")), coverage=2 / 50, gini=0.0, entropy=1.0)


def test_diversity_without_items_is_unknown(store, put):
    put("diversity", "second arm lists\n 5 fresh 1")
    row = one(store.query("SELECT * FROM {db}.diversity"))
    close(row, intra_list_distance=None, novelty=None, entropy=None, gini=None, items_shown=0)


def test_freshness_percentiles_are_bin_edges(store, put):
    put("freshness", "second kind upto count\n 0 event_to_slate 10 50\n 1 event_to_slate 20 44")
    put("freshness", "second kind upto count\n 0 event_to_slate 50 5\n 1 event_to_slate inf 1", block=1)
    row = one(store.query("SELECT * FROM {db}.freshness"))
    close(row, count=100, p50=10, p95=50, p99=50)
    assert row["kind"] == "event_to_slate"


def test_freshness_is_per_minute_and_kind(store, put):
    put("freshness", "second kind upto count\n 0 a 1 1\n 0 b 2 1\n 60 a 3 1")
    rows = store.query("SELECT * FROM {db}.freshness ORDER BY time, kind")
    assert [r["p50"] for r in rows] == [1, 2, 3]


def test_auc_counts_ties_half(store, put):
    # positives at 1, 2, 2; negatives at 0, 1, 2, 2: of 12 pairs 5 in order, 5 tied
    put(
        "quality",
        """
        second task  lag   bin count positives predicted loss
        0      click 0     0   1     0         0.1       0.2
        0      click 0     1   2     1         0.8       1.4
        30     click 0     2   2     1         1.2       1.0
        """,
    )
    put("quality", "second task lag bin count positives predicted loss\n 0 click 0 2 2 1 1.2 1.0", block=1)
    row = one(store.query("SELECT * FROM {db}.quality"))
    close(row, count=7, positives=3, auc=(5 + 5 / 2) / 12, log_loss=3.6 / 7, calibration=3.3 / 3)
    entropy = -(3 / 7 * math.log(3 / 7) + 4 / 7 * math.log(4 / 7))
    close(row, normalised_entropy=3.6 / 7 / entropy, ece=(0.1 + 0.2 + 0.4) / 7)


def test_auc_of_negative_bins_in_order(store, put):
    put(
        "quality",
        """
        second task lag bin count positives predicted loss
        0 cart 0 -80 3 0 0 0.1
        0 cart 0 -1 1 1 0.5 0.1
        0 click 0 5 4 4 4 0.1
        """,
    )
    cart, click = store.query("SELECT * FROM {db}.quality ORDER BY task")
    close(cart, auc=1.0)
    close(click, auc=None, normalised_entropy=None, calibration=1.0)


def test_ranking_stands_beside_the_click_task(store, put):
    put("quality", "second task lag bin count positives\n 0 click 0 0 4 1\n 0 cart 0 0 4 1")
    put("ranking", "second lag lists reciprocal ndcg\n 0 0 4 2 3\n 30 0 1 1 1\n 0 frozen 1 0.5 0.6")
    rows = {(r["task"], r["lag"]): r for r in store.query("SELECT * FROM {db}.quality")}
    close(rows["click", "0"], lists=5, mrr=0.6, ndcg=0.8, count=4, auc=0.5)
    close(rows["cart", "0"], lists=0, mrr=None, ndcg=None)
    close(rows["click", "frozen"], lists=1, mrr=0.5, count=0, auc=None, log_loss=None)


def experiment(arm, clicks, impressions=100):
    rows = [f"0 {arm} {b} {impressions} {c} 1 1 2.5" for b, c in enumerate(clicks)]
    return "\n".join(["second arm bucket impressions clicks carts purchases revenue", *rows])


def test_variance_of_an_arm_comes_from_its_user_buckets(store, put):
    put("experiment", experiment("fresh", [8, 12]))
    put("experiment", experiment("frozen", [10, 10]))
    fresh, frozen = store.query("SELECT * FROM {db}.experiment ORDER BY arm")
    # residuals -2 and 2 of 200 impressions: var = 2/1 * 8 / 200^2
    close(fresh, impressions=200, clicks=20, ctr=0.1, error=math.sqrt(16) / 200, buckets=2)
    close(fresh, carts=2, purchases=2, revenue=5.0, lift=0.0)
    close(frozen, error=0.0, ctr_low=0.1, ctr_high=0.1)


def test_interval_is_the_confidence_sequence(store, put):
    put("experiment", experiment("fresh", [90, 110] * 16, 1000))
    put("experiment", experiment("frozen", [100, 100] * 16, 1000))
    fresh = store.query("SELECT * FROM {db}.experiment WHERE arm = 'fresh'")[0]
    t = 32_000 * (-2 * math.log(0.05) + math.log(1 - 2 * math.log(0.05))) / 10_000
    z = math.sqrt(2 * (t + 1) / t * math.log(math.sqrt(t + 1) / 0.05))
    width = z * (1 + (z * z + 1) / (4 * 31))
    error = math.sqrt(32 / 31 * 32 * 100) / 32_000
    factor = math.exp(width * error / 0.1)
    close(fresh, error=error, ctr_low=0.1 / factor, ctr_high=0.1 * factor)
    close(fresh, lift_low=1 / factor - 1, lift_high=factor - 1)


def test_without_a_click_there_is_no_interval(store, put):
    put("experiment", experiment("fresh", [0, 0, 0]))
    put("experiment", experiment("frozen", [1, 2, 3]))
    fresh, frozen = store.query("SELECT * FROM {db}.experiment ORDER BY arm")
    close(fresh, ctr=0.0, ctr_low=None, ctr_high=None, lift=-1.0, lift_low=None, lift_high=None)
    close(frozen, lift=None, lift_low=None, lift_high=None)
    assert 0 < frozen["ctr_low"] < frozen["ctr"] < frozen["ctr_high"]


def test_lift_is_against_each_arm_and_all_others(store, put):
    put("experiment", experiment("a", [20, 20]))
    put("experiment", experiment("b", [10, 10]))
    put("experiment", experiment("c", [5, 5]))
    lift = {(r["arm"], r["against"]): r["lift"] for r in store.query("SELECT * FROM {db}.lift")}
    assert lift["a", "b"] == pytest.approx(1.0)
    assert lift["c", "a"] == pytest.approx(-0.75)
    assert lift["a", "others"] == pytest.approx(20 / 7.5 - 1)
    assert len(lift) == 9


def test_the_slate_for_strangers_has_a_rate_and_is_compared_with_no_arm(store, put):
    for arm, clicks in (("a", [20, 20]), ("b", [10, 10]), ("default", [30, 50])):
        put("experiment", experiment(arm, clicks))
    lift = {(r["arm"], r["against"]): r for r in store.query("SELECT * FROM {db}.lift")}
    assert {pair for pair, row in lift.items() if row["lift"] is not None} == {
        ("a", "b"), ("b", "a"), ("a", "others"), ("b", "others")
    }  # fmt: skip
    assert lift["a", "others"]["lift"] == pytest.approx(1.0)
    row = one(store.query("SELECT * FROM {db}.experiment WHERE arm = 'default'"))
    close(row, ctr=0.4, lift=None, lift_low=None)
    assert row["ctr_low"] < 0.4 < row["ctr_high"]


def test_bucket_that_only_another_arm_has_still_counts_for_it(store, put):
    put("experiment", experiment("a", [20]))
    put("experiment", experiment("b", [10, 30]))
    row = one(store.query("SELECT * FROM {db}.lift WHERE arm = 'a' AND against = 'b'"))
    close(row, lift=0.0, buckets=1, ctr_low=None)


def test_lone_arm_has_a_rate_and_no_lift(store, put):
    put("experiment", experiment("fresh", [8, 12]))
    close(one(store.query("SELECT * FROM {db}.experiment")), ctr=0.1, lift=None, lift_low=None)


def test_choices_are_estimated_from_the_explored_places_of_all_arms(store, put):
    # pools of 4, one of 5 slates explored at one of 2 places: weight 40, or 10 places stood for
    put(
        "choices",
        """
        second arm policy bucket shown matched places weight squares clicks
        0 fresh  fresh  0 6 2 60 80  3200 40
        1 fresh  fresh  0 0 0 0  0   0    40
        0 frozen fresh  1 2 1 20 40  1600 0
        0 fresh  frozen 0 6 0 60 0   0    0
        """,
    )
    fresh, frozen = store.query("SELECT * FROM {db}.choices ORDER BY policy")
    close(fresh, shown=8, matched=3, coverage=120 / 80, effective=120**2 / 4800, ips=80 / 80, snips=80 / 120)
    # residuals 80 - 2/3 x 80 and 0 - 2/3 x 40
    error = math.sqrt(2 / 1 * ((80 / 3) ** 2 + (80 / 3) ** 2)) / 120
    t = 3 * (-2 * math.log(0.05) + math.log(1 - 2 * math.log(0.05))) / 1000
    z = math.sqrt(2 * (t + 1) / t * math.log(math.sqrt(t + 1) / 0.05))
    reach = z * (1 + (z * z + 1) / 4) * error / (2 / 3)
    close(fresh, error=error, low=2 / 3 * math.exp(-reach), high=2 / 3 * math.exp(reach))
    close(frozen, shown=6, matched=0, coverage=0.0, effective=None, ips=0.0, snips=None, low=None, high=None)


def test_an_arm_stands_beside_the_value_of_its_choice(store, put):
    put("experiment", experiment("fresh", [8, 12]))
    put("experiment", experiment("frozen", [10, 10]))
    put(
        "choices",
        """
        second arm policy bucket shown matched places weight squares clicks
        0 frozen fresh    0 1 1 10 40 1600 40
        0 frozen fresh    1 1 1 10 40 1600 0
        0 frozen ~uniform 0 1 1 10 10 100  0
        """,
    )
    fresh, frozen = store.query("SELECT * FROM {db}.experiment ORDER BY arm")
    close(fresh, choice=0.5, impressions=200)
    assert 0 <= fresh["choice_low"] < 0.5 < fresh["choice_high"]
    close(frozen, choice=None, choice_low=None, choice_high=None, impressions=200)


def test_models_keep_every_decision(store, put):
    put(
        "models",
        """
        second epoch n decision lists bytes rows seconds loss_before loss_after
        0 1 0 snapshot 0 100 10 0.5 0 0
        1 1 1 published 32 5 2 0.1 0.7 0.6
        """,
    )
    rows = store.query("SELECT * FROM {db}.models ORDER BY time")
    assert [r["decision"] for r in rows] == ["snapshot", "published"]
    close(rows[1], epoch=1, n=1, lists=32, bytes=5, rows=2, seconds=0.1, loss_before=0.7, loss_after=0.6)


def test_health_counts_per_second_and_reason(store, put):
    text = "second role counter reason count\n 0 rank dead late 2\n 0 rank dead poison 1"
    put("health", text)
    put("health", text, partition=1)
    rows = store.query("SELECT * FROM {db}.health ORDER BY reason")
    assert [(r["counter"], r["reason"], r["count"]) for r in rows] == [
        ("dead", "late", 4),
        ("dead", "poison", 2),
    ]


def test_gauge_is_the_newest_reading_not_a_sum(store, put):
    put("gauges", "second role gauge value\n 0 rank lag 7", block=0, version=9)
    put("gauges", "second role gauge value\n 0 rank lag 3", block=1, version=1)
    close(one(store.query("SELECT * FROM {db}.gauges")), value=3)


def test_truth_gives_regret(store, put):
    put("truth", "second arm impressions expected best\n 0 fresh 10 3 4\n 9 fresh 10 3 6")
    close(one(store.query("SELECT * FROM {db}.truth")), impressions=20, regret=0.4)


def test_same_alert_twice_is_one(store):
    alert = Alert(rule="misrouted", ts=T0 * 1000 + 5, severity="error", message="m", values={"n": 2.0})
    store.alert([alert])
    store.alert([alert])
    row = one(store.query("SELECT * FROM {db}.alerts"))
    assert row["time"].timestamp() == T0 + 0.005
    assert (row["rule"], row["values"]) == ("misrouted", {"n": 2.0})


def test_views_of_nothing_are_empty(store):
    views = "ctr items diversity freshness quality experiment choices lift models health gauges truth alerts"
    for view in views.split():
        assert store.query(f"SELECT * FROM {{db}}.{view}") == [], view
