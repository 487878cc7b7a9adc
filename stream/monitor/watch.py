"""Reads back from ClickHouse what the detectors look at."""

from __future__ import annotations

from typing import Any

from models.batch import TASKS
from stream.clickhouse import Store
from stream.messages import Alert
from stream.monitor.detectors import STALE_S, Drift, Hush, Reading, broken_rules

SETTLE_S = 5
"""A second is complete when the newest one is this much later: rows come once a second, and retries."""
PRIME_S = 600
"""Seconds of the past that a new monitor learns from without speaking of them."""
NOT_YET = -1

# {past}: seconds that were looked at; positions above 0 are places in a list
CTR = """
    SELECT toUnixTimestamp(time) AS second, arm AS series, sum(v.clicks) / sum(v.impressions) AS value
    FROM {db}.ctr AS v WHERE position > 0 AND time > toDateTime({past}) AND time <= toDateTime({now})
    GROUP BY second, series HAVING sum(v.impressions) > 0 ORDER BY second, series
"""
LOG_LOSS = """
    SELECT toUnixTimestamp(second) AS second, task AS series, sum(loss) / sum(q.count) AS value
    FROM {db}.quality_cube AS q FINAL
    WHERE task = '{task}' AND lag = '0'
        AND q.second > toDateTime({past}) AND q.second <= toDateTime({now})
    GROUP BY second, series HAVING sum(q.count) > 0 ORDER BY second, series
"""
COUNTS = """
    SELECT
        sumIf(count, role = 'rank' AND counter = 'consumed') AS consumed,
        sumIf(count, role = 'rank' AND counter = 'dead') AS dead,
        sumIf(count, role = 'rank' AND counter = 'misrouted') AS misrouted,
        sumIf(count, role = 'rank' AND counter = 'capped') AS capped,
        sumIf(count, role = 'train' AND counter = 'dead') AS refused,
        sumIf(count, role = 'train' AND counter = 'aside') AS aside,
        sumIf(count, role = 'train' AND counter = 'consumed' AND time > toDateTime({now} - {stale}))
            AS learned
    FROM {db}.health WHERE time > toDateTime({now} - 60)
"""
MODEL = """
    SELECT
        toUnixTimestamp(maxIf(second, decision != 'rejected')) AS newest,
        countIf(decision != 'rejected') AS ever,
        uniqExactIf((epoch, n), second > toDateTime({now} - 60)) AS versions,
        uniqExactIf((epoch, n), decision = 'rejected' AND second > toDateTime({now} - 60)) AS rejected
    FROM {db}.models_cube
"""
SLATES = """
    SELECT quantileExactWeighted(0.99)(upto, f.count) AS p99, sum(f.count) AS slates
    FROM {db}.freshness_cube AS f FINAL
    WHERE kind = 'event_to_slate' AND second > toDateTime({now} - 60)
"""


def log_loss(task: str) -> str:
    """A query per task: carts and purchases are judged later, so that their seconds complete later."""
    return LOG_LOSS.replace("{task}", task)


class Series:
    """Feeds complete seconds of a query to a drift detector, each once."""

    def __init__(self, sql: str, drift: Drift) -> None:
        self.sql, self.drift = sql, drift
        self.past = NOT_YET

    def look(self, store: Store, now_s: int) -> list[Alert]:
        """Alerts of the seconds that are complete and were not looked at before."""
        first = self.past == NOT_YET
        if first:
            self.past = self._start(store, now_s)
        sql = self.sql.replace("{past}", str(self.past)).replace("{now}", str(now_s))
        rows = store.query(sql)
        upto = max((row["second"] for row in rows), default=0) - SETTLE_S
        alerts = []
        for row in rows:
            if row["second"] <= upto:
                self.past = max(self.past, row["second"])
                alerts.append(self.drift.learn_one(row["series"], row["second"], row["value"]))
        return [] if first else [alert for alert in alerts if alert is not None]

    def _start(self, store: Store, now_s: int) -> int:
        """Second to begin after: a recorded stream's newest one may be years ago."""
        cube = "ctr" if self.sql is CTR else "quality"
        sql = f"SELECT toUnixTimestamp(max(second)) AS newest FROM {{db}}.{cube}_cube"
        newest: int = store.query(f"{sql} WHERE second <= toDateTime({now_s})")[0]["newest"]
        return max(newest - PRIME_S, 0)


class Watch:
    """Everything that the monitor watches; `look` is called about once a second."""

    def __init__(self, store: Store) -> None:
        self.store = store
        drift = Drift("log_loss_drift", "log loss of")
        self.series = [
            Series(CTR, Drift("ctr_drift", "CTR of arm")),
            *(Series(log_loss(task), drift) for task in TASKS),
        ]
        self.hush = Hush()

    def look(self, now_ms: int) -> list[Alert]:
        """Alerts to send at `now_ms`; raises what `Store.query` raises."""
        now_s = now_ms // 1000
        alerts = [alert for series in self.series for alert in series.look(self.store, now_s)]
        alerts += broken_rules(self.read(now_s), now_ms)
        return self.hush.let_through(alerts, now_ms)

    def read(self, now_s: int) -> Reading:
        """What the rules look at, of the minute before `now_s`."""
        counts, model, slates = (self._row(sql, now_s) for sql in (COUNTS, MODEL, SLATES))
        return Reading(
            consumed=counts["consumed"],
            dead=counts["dead"],
            misrouted=counts["misrouted"],
            capped=counts["capped"],
            refused=counts["refused"],
            aside=counts["aside"],
            rejected=model["rejected"],
            versions=model["versions"],
            model_age_s=float(now_s - model["newest"]) if model["ever"] else None,
            learning=counts["learned"] > 0,
            slate_p99_ms=slates["p99"] if slates["slates"] else None,
        )

    def _row(self, sql: str, now_s: int) -> dict[str, Any]:
        filled = sql.replace("{now}", str(now_s)).replace("{stale}", str(STALE_S))
        return self.store.query(filled)[0]
