"""How it is going, from what ClickHouse holds and nothing else: plain data, and its rendering."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stream.clickhouse import Store
from stream.messages import STRANGERS
from stream.text import NONE, milliseconds, number, percent, signed, span


class Arm(Struct, frozen=True, kw_only=True):
    """One arm of the experiment; intervals hold at 95% at every look, lifts are against the other arms."""

    arm: str
    impressions: int = 0
    clicks: int = 0
    carts: int = 0
    purchases: int = 0
    revenue: float = 0.0
    ctr: float | None = None
    ctr_low: float | None = None
    ctr_high: float | None = None
    lift: float | None = None
    lift_low: float | None = None
    lift_high: float | None = None
    intra_list_distance: float | None = None
    novelty: float | None = None
    items_shown: int = 0
    coverage: float | None = None
    regret: float | None = None


class Lift(Struct, frozen=True, kw_only=True):
    """CTR of an arm over that of another, less 1."""

    arm: str
    against: str
    lift: float | None
    lift_low: float | None
    lift_high: float | None


class Freshness(Struct, frozen=True, kw_only=True):
    """Latency in ms, the upper edge of the bin; `kind` is event_to_slate or event_to_learned."""

    kind: str
    count: int
    p50: float
    p95: float
    p99: float


class Quality(Struct, frozen=True, kw_only=True):
    """How good the predictions were before the model trained on what they predict."""

    task: str
    lag: str
    count: int
    positives: int
    auc: float | None
    log_loss: float | None
    normalised_entropy: float | None
    calibration: float | None
    mrr: float | None = None
    ndcg: float | None = None


class Models(Struct, frozen=True, kw_only=True):
    """Versions by what became of them."""

    published: int = 0
    rejected: int = 0
    snapshots: int = 0
    mean_bytes: float | None = None
    newest: datetime | None = None


class Count(Struct, frozen=True, kw_only=True):
    """A total of the health cube."""

    role: str
    counter: str
    reason: str
    count: int


class Report(Struct, frozen=True, kw_only=True):
    """Everything that `liverank report` prints."""

    since: datetime | None = None
    until: datetime | None = None
    arms: list[Arm] = []
    lifts: list[Lift] = []
    freshness: list[Freshness] = []
    quality: list[Quality] = []
    models: Models = Models()
    health: list[Count] = []
    alerts: dict[str, int] = {}


SPAN = "SELECT min(second) AS since, max(second) AS until FROM {db}.ctr_cube HAVING count() > 0"
ARMS = """
    SELECT
        arm, impressions, clicks, carts, purchases, revenue,
        ctr, ctr_low, ctr_high, lift, lift_low, lift_high
    FROM {db}.experiment ORDER BY ctr DESC, arm
"""
LISTS = """
    SELECT
        arm, sum(d.apart) / nullIf(sum(d.pairs), 0) AS intra_list_distance,
        sum(d.surprise) / nullIf(sum(d.items), 0) AS novelty
    FROM {db}.diversity_cube AS d FINAL GROUP BY arm
"""
SHOWN = """
    SELECT
        arm, uniqExact(item_id) AS items_shown,
        items_shown / nullIf((SELECT size FROM {db}.catalogue), 0) AS coverage
    FROM {db}.items_cube WHERE impressions > 0 GROUP BY arm
"""
REGRET = """
    SELECT arm, (sum(t.best) - sum(t.expected)) / nullIf(sum(t.best), 0) AS regret
    FROM {db}.truth_cube AS t FINAL GROUP BY arm
"""
LIFTS = """
    SELECT arm, against, lift, lift_low, lift_high FROM {db}.lift
    WHERE against != 'others' AND lift IS NOT NULL ORDER BY lift DESC, arm
"""
FRESHNESS = """
    SELECT
        kind, sum(f.count) AS count, quantileExactWeighted(0.5)(upto, f.count) AS p50,
        quantileExactWeighted(0.95)(upto, f.count) AS p95, quantileExactWeighted(0.99)(upto, f.count) AS p99
    FROM {db}.freshness_cube AS f FINAL GROUP BY kind HAVING count > 0 ORDER BY kind DESC
"""
BINS = """
    SELECT
        task, lag, bin, sum(q.count) AS count, sum(q.positives) AS positives,
        sum(q.predicted) AS predicted, sum(q.loss) AS loss
    FROM {db}.quality_cube AS q FINAL GROUP BY task, lag, bin ORDER BY task, length(lag), lag, bin
"""
RANKING = """
    SELECT
        lag, sum(r.reciprocal) / nullIf(sum(r.lists), 0) AS mrr,
        sum(r.ndcg) / nullIf(sum(r.lists), 0) AS ndcg
    FROM {db}.ranking_cube AS r FINAL GROUP BY lag
"""
MODELS = """
    SELECT
        countIf(decision = 'published') AS published, countIf(decision = 'rejected') AS rejected,
        countIf(decision = 'snapshot') AS snapshots,
        avgOrNullIf(bytes, decision = 'published') AS mean_bytes, maxOrNull(time) AS newest
    FROM {db}.models
"""
HEALTH = """
    SELECT role, counter, reason, sum(h.count) AS count
    FROM {db}.health_cube AS h FINAL GROUP BY role, counter, reason ORDER BY role, counter, count DESC
"""
ALERTS = "SELECT rule, count() AS times FROM {db}.alerts GROUP BY rule ORDER BY times DESC, rule"


WORDS = ("count of", "why", "model")
"""Columns of words, not numbers."""


def read(store: Store) -> Report:
    """Read the report; raises what `Store.query` raises."""
    spans = store.query(SPAN)
    by_arm: dict[str, dict[str, Any]] = {}
    for sql in (ARMS, LISTS, SHOWN, REGRET):
        for row in store.query(sql):
            by_arm.setdefault(row["arm"], {}).update(row)
    # the simulated shop also knows pages that no arm made; those are nobody's result
    arms = [Arm(**fields) for fields in by_arm.values() if "impressions" in fields]
    return Report(
        since=spans[0]["since"] if spans else None,
        until=spans[0]["until"] if spans else None,
        arms=arms,
        lifts=[Lift(**row) for row in store.query(LIFTS)],
        freshness=[Freshness(**row) for row in store.query(FRESHNESS)],
        quality=_quality(store.query(BINS), store.query(RANKING)),
        models=Models(**store.query(MODELS)[0]),
        health=[Count(**row) for row in store.query(HEALTH)],
        alerts={row["rule"]: row["times"] for row in store.query(ALERTS)},
    )


class Bin(NamedTuple):
    """Predictions of about one score; `loss` is the sum of log losses (nats)."""

    examples: int
    positives: int
    predicted: float
    loss: float


def _quality(bins: list[dict[str, Any]], ranking: list[dict[str, Any]]) -> list[Quality]:
    groups: dict[tuple[str, str], list[Bin]] = {}
    for row in bins:
        group = groups.setdefault((row["task"], row["lag"]), [])
        group.append(Bin(row["count"], row["positives"], row["predicted"], row["loss"]))
    ranked = {("click", row["lag"]): {"mrr": row["mrr"], "ndcg": row["ndcg"]} for row in ranking}
    return [
        Quality(task=task, lag=lag, **summarise(group), **ranked.get((task, lag), {}))
        for (task, lag), group in groups.items()
    ]


def summarise(bins: Sequence[Bin]) -> dict[str, Any]:
    """AUC, log loss and calibration of bins in ascending order of score, as the view `quality` has them.

    >>> result = summarise([Bin(2, 0, 0.2, 0.3), Bin(2, 1, 0.8, 1.3)])
    >>> result["auc"], result["log_loss"], result["calibration"]
    (0.8333333333333334, 0.4, 1.0)
    """
    count, positives = sum(b.examples for b in bins), sum(b.positives for b in bins)
    below, ordered = 0, 0.0
    for b in bins:
        negatives = b.examples - b.positives
        ordered += b.positives * (below + negatives / 2)
        below += negatives
    loss = _ratio(sum(b.loss for b in bins), count)
    rate = _ratio(positives, count)
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate)) if rate and rate < 1 else 0.0
    return {
        "count": count,
        "positives": positives,
        "auc": _ratio(ordered, positives * below),
        "log_loss": loss,
        "normalised_entropy": None if loss is None else _ratio(loss, entropy),
        "calibration": _ratio(sum(b.predicted for b in bins), positives),
    }


def _ratio(a: float, b: float) -> float | None:
    return a / b if b else None


def render(report: Report) -> Group:
    """What to print with rich, most wanted first."""
    if not report.arms and not report.health:
        return Group("Nothing has been counted yet.")
    parts: list[RenderableType] = []
    if report.arms:
        parts.append(_arms(report.arms))
    ahead = [_verdict(lift) for lift in report.lifts if lift.lift is not None and lift.lift > 0]
    if ahead:
        parts.append(Group(*ahead))
    if report.freshness:
        parts.append(_freshness(report.freshness))
    if report.quality:
        parts.append(_predictions(report.quality))
    parts.append(_versions(report.models))
    if report.health:
        parts.append(_health(report.health))
    if report.alerts:
        spoken = ", ".join(f"{rule} ({times})" for rule, times in report.alerts.items())
        parts.append(Text(f"Alerts: {spoken}", style="yellow"))
    return Group(*(line for part in parts for line in (part, "")))


def _arms(arms: list[Arm]) -> Table:
    caption = "intervals: 95%, valid at every look"
    if any(arm.arm == STRANGERS for arm in arms):
        caption += f"; {STRANGERS}: the slate for strangers, compared with no arm"
    table = _table("Arms", "", *(arm.arm for arm in arms), caption=caption)
    lines: list[tuple[str, Callable[[Arm], str]]] = [
        ("impressions", lambda a: f"{a.impressions:,}"),
        ("clicks", lambda a: f"{a.clicks:,}"),
        ("CTR", lambda a: percent(a.ctr, 2)),
        ("  95% interval", lambda a: span(a.ctr_low, a.ctr_high, 2)),
        ("lift on the others", lambda a: signed(a.lift)),
        ("  95% interval", lambda a: span(a.lift_low, a.lift_high, 0, "+")),
        ("added to cart", lambda a: f"{a.carts:,}"),
        ("purchases", lambda a: f"{a.purchases:,}"),
        ("revenue", lambda a: f"{a.revenue:,.2f}"),
        ("distance within lists", lambda a: number(a.intra_list_distance)),
        ("catalogue shown", lambda a: percent(a.coverage)),
        ("novelty, bits", lambda a: number(a.novelty, 1)),
        ("regret", lambda a: percent(a.regret)),
    ]
    for name, text in lines:
        cells = [text(arm) for arm in arms]
        if any(cell != NONE for cell in cells):
            table.add_row(name, *cells)
    return table


def _verdict(lift: Lift) -> Text:
    """Say it plainly, and only when the whole interval says so."""
    by = f"{lift.against} by {signed(lift.lift)} ({span(lift.lift_low, lift.lift_high, 0, '+')})"
    if lift.lift_low is not None and lift.lift_low > 0:
        return Text(f"{lift.arm} beats {by}", "green")
    return Text(f"{lift.arm} leads {by}: not settled", "dim")


def _freshness(rows: Iterable[Freshness]) -> Table:
    table = _table("Freshness", "", "p50", "p95", "p99", "measured")
    for row in rows:
        times = (milliseconds(value) for value in (row.p50, row.p95, row.p99))
        table.add_row(row.kind.replace("_", " "), *times, f"{row.count:,}")
    return table


def _predictions(rows: Iterable[Quality]) -> Table:
    heads = ("model", "scored", "AUC", "log loss", "entropy", "predicted / seen", "MRR", "NDCG@10")
    table = _table("Predictions, before learning from them", "task", *heads)
    for row in rows:
        values = (row.auc, row.log_loss, row.normalised_entropy, row.calibration, row.mrr, row.ndcg)
        table.add_row(row.task, row.lag, f"{row.count:,}", *(number(value) for value in values))
    return table


def _versions(models: Models) -> Text:
    size = "" if models.mean_bytes is None else f", {models.mean_bytes / 1000:,.1f} kB each"
    return Text(
        f"Model versions: {models.published:,} published{size}; {models.rejected:,} rejected by the gate; "
        f"{models.snapshots:,} snapshots"
    )


def _health(rows: Iterable[Count]) -> Table:
    table = _table("Events", "role", "count of", "why", "total")
    for row in rows:
        # a reason quotes what somebody sent: not markup
        table.add_row(row.role, row.counter, Text(row.reason), f"{row.count:,}")
    return table


def _table(title: str, first: str, *rest: str, caption: str | None = None) -> Table:
    table = Table(title=title, caption=caption, title_style="bold", box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for head in rest:
        table.add_column(head, justify="left" if head in WORDS else "right")
    return table
