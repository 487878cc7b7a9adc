import io

import msgspec
import pytest
from rich.console import Console

from stream.report import Arm, Bin, Count, Lift, Report, read, render, summarise


def text(report):
    console = Console(width=120, file=io.StringIO())
    console.print(render(report))
    return console.file.getvalue()


def buckets(arm, clicks):
    rows = [f"0 {arm} {b} 1000 {clicks + b % 3} 4 2 10.5" for b in range(32)]
    return "\n".join(["second arm bucket impressions clicks carts purchases revenue", *rows])


def test_nothing_counted_says_so(store):
    assert read(store) == Report()
    assert "Nothing has been counted yet" in text(read(store))


def test_arms_stand_side_by_side_best_first(store, put):
    put("ctr", "second arm position impressions\n 0 fresh 1 1\n 90 fresh 1 1")
    put("experiment", buckets("fresh", 100))
    put("experiment", buckets("frozen", 50))
    put("diversity", "second arm lists items pairs apart surprise\n 0 fresh 1 4 6 3 16\n 60 fresh 1 4 6 6 16")
    put("items", "second arm item_id impressions\n 0 fresh a 1\n 60 fresh a 1\n 0 frozen b 1\n 0 frozen c 0")
    put("truth", "second arm impressions expected best\n 0 fresh 10 3 4\n 60 none 10 0 4")
    got = read(store)
    fresh, frozen = got.arms
    assert (fresh.arm, fresh.impressions, fresh.carts, fresh.revenue) == ("fresh", 32_000, 128, 336.0)
    assert fresh.intra_list_distance == pytest.approx(0.75)
    assert fresh.novelty == pytest.approx(4.0)
    assert (fresh.items_shown, fresh.coverage, fresh.regret) == (1, pytest.approx(1 / 3), 0.25)
    assert fresh.ctr_low < fresh.ctr < fresh.ctr_high
    assert frozen.regret is None
    assert (got.until - got.since).total_seconds() == 90
    assert [(lift.arm, lift.against) for lift in got.lifts] == [("fresh", "frozen"), ("frozen", "fresh")]
    assert "fresh beats frozen by +98." in text(got)


def test_the_slate_for_strangers_is_explained_where_it_was_seen() -> None:
    seen, unseen = (" ".join(text(Report(arms=[Arm(arm=arm)])).split()) for arm in ("default", "fresh"))
    assert "slate for strangers" in seen
    assert "slate for strangers" not in unseen


def test_percentiles_of_all_minutes_are_not_means_of_minutes(store, put):
    put("freshness", "second kind upto count\n 0 event_to_slate 10 98\n 60 event_to_slate 5000 2")
    [row] = read(store).freshness
    assert (row.p50, row.p95, row.p99, row.count) == (10, 10, 5000, 100)


def test_auc_of_all_minutes_pools_the_scores(store, put):
    put(
        "quality",
        "second task lag bin count positives loss\n 0 click 0 8 2 1 1.4\n 60 click 0 0 2 1 1.0",
    )
    put("ranking", "second lag lists reciprocal ndcg\n 0 0 1 1 1\n 60 0 1 0.5 0.6")
    [row] = read(store).quality
    assert (row.count, row.auc, row.log_loss) == (4, 0.5, pytest.approx(0.6))
    assert (row.mrr, row.ndcg) == (0.75, pytest.approx(0.8))


def test_report_agrees_with_the_view_on_quality(store, put):
    put(
        "quality",
        """
        second task lag bin count positives predicted loss
        0 cart 0 -3 20 2 1.5 7.5
        1 cart 0 0 10 4 5.5 6.5
        2 cart 0 9 5 4 3.5 2.5
        """,
    )
    [view] = store.query("SELECT * FROM {db}.quality")
    [row] = read(store).quality
    for name in ("auc", "log_loss", "normalised_entropy", "calibration"):
        assert getattr(row, name) == pytest.approx(view[name]), name


def test_versions_and_events_are_totals(store, put):
    put(
        "models",
        """
        second epoch n decision bytes
        0      1     0 snapshot 0
        1      1     1 published 100
        2      1     2 published 300
        3      1     3 rejected 900
        """,
    )
    put("health", "second role counter reason count\n 0 rank dead late 2\n 1 rank dead late 3")
    got = read(store)
    assert (got.models.published, got.models.rejected, got.models.snapshots) == (2, 1, 1)
    assert got.models.mean_bytes == 200
    assert [(c.reason, c.count) for c in got.health] == [("late", 5)]
    assert "2 published" in text(got)


def test_report_goes_to_json_and_back(store, put):
    put("experiment", buckets("fresh", 100))
    put("freshness", "second kind upto count\n 0 event_to_slate 10 1")
    got = read(store)
    assert msgspec.json.decode(msgspec.json.encode(got), type=Report) == got


def test_scores_without_positives_have_no_auc():
    result = summarise([Bin(10, 0, 0.5, 0.6)])
    assert result["auc"] is None
    assert result["calibration"] is None
    assert result["normalised_entropy"] is None
    assert result["log_loss"] == pytest.approx(0.06)


@pytest.mark.parametrize(("low", "word"), [(0.01, "beats"), (-0.01, "not settled"), (None, "not settled")])
def test_winner_is_named_only_when_the_interval_says_so(low, word):
    lift = Lift(arm="fresh", against="frozen", lift=0.1, lift_low=low, lift_high=0.2)
    assert word in text(Report(arms=[Arm(arm="fresh")], lifts=[lift]))


def test_latency_over_the_scale_is_said(store, put):
    put("freshness", "second kind upto count\n 0 event_to_slate inf 1")
    put("health", "second role counter count\n 0 rank consumed 1")
    assert "over the scale" in text(read(store))


def test_reason_is_shown_as_it_is():
    assert "at $[0] [red]" in text(
        Report(health=[Count(role="rank", counter="dead", reason="at $[0] [red]", count=1)])
    )
