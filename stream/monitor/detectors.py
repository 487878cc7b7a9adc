"""What an operator should hear of: drift in CTR and log loss, and a few rules over the last minute.

Plain readings in, `Alert` or nothing out: no clock, no database. Two files import river: this one, and
`stream.evaluate.linear`, whose models are no part of a running stack.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import pstdev
from typing import NamedTuple

from river.drift import ADWIN

from stream.messages import Alert

WARM_UP = 30
"""Readings that tell a series' spread, before any is judged."""
RECENT = 10
"""Readings that `after` in an alert of drift is the mean of."""
CLOCK = 8
"""ADWIN looks for a change every so many readings."""

DEAD_SHARE = 0.01
STALE_S = 30
REJECTED_SHARE, REJECTED = 0.25, 5
"""Of the versions of a minute, and at least so many: now and then one is turned away for an odd batch."""
SLOW_MS = 1000.0
QUIET_MS = 60_000
"""One rule speaks once a minute at most: it repeats while its cause lasts."""


class _Window:
    """ADWIN of one series, in units of its spread.

    ADWIN's bound takes values to fill 0..1: a rate of a few percent would have to double before it is
    believed. The first readings tell the unit, two standard deviations: for 300 impressions a second a
    CTR that falls from 8% to 6% is told in 50 s (in 270 s with ten), a steady one not once in 30 hours.
    """

    def __init__(self, delta: float) -> None:
        self.adwin = ADWIN(delta=delta, clock=CLOCK)  # type: ignore[no-untyped-call]
        self.newest: deque[float] = deque(maxlen=WARM_UP)
        self.unit = 0.0

    def update(self, value: float) -> bool:
        """Add a reading; whether the mean has changed."""
        self.newest.append(value)
        if self.unit:
            return self._learn(value)
        if len(self.newest) == WARM_UP:
            self.unit = 2 * pstdev(self.newest) or 1.0
            for each in self.newest:
                self._learn(each)
        return False

    def _learn(self, value: float) -> bool:
        self.adwin.update(value / self.unit)  # type: ignore[no-untyped-call]
        return bool(self.adwin.drift_detected)

    @property
    def mean(self) -> float:
        return float(self.adwin.estimation) * self.unit


class Drift:
    """Tells when the mean of a series has changed, one ADWIN window per series.

    ADWIN (Bifet and Gavalda, 2007) keeps the longest window whose halves have the same mean; when two
    halves differ by more than chance (at `delta`), the older one is dropped and the change is reported.

    Parameters
    ----------
    rule
        Name of the alert, before the series' name.
    what
        The quantity, in words.
    delta
        How often to cry wolf: the bound on a false alarm at each look.

    Examples
    --------
    >>> drift = Drift("ctr_drift", "CTR of arm")
    >>> series = [0.1, 0.12] * 60 + [0.3, 0.32] * 60
    >>> alerts = [a for second, x in enumerate(series) if (a := drift.learn_one("fresh", second, x))]
    >>> alerts[0].rule, alerts[0].values["after"] > alerts[0].values["before"]
    ('ctr_drift:fresh', True)
    """

    def __init__(self, rule: str, what: str, delta: float = 0.002) -> None:
        self.rule, self.what, self.delta = rule, what, delta
        self._windows: dict[str, _Window] = {}

    def learn_one(self, series: str, second: int, value: float) -> Alert | None:
        """Add the reading of one second (since the epoch); an alert if the mean has changed."""
        window = self._windows.setdefault(series, _Window(self.delta))
        before = window.mean
        if not window.update(value):
            return None
        recent = list(window.newest)[-RECENT:]
        after = sum(recent) / len(recent)
        return Alert(
            rule=f"{self.rule}:{series}",
            ts=second * 1000,
            severity="warning",
            message=f"{self.what} {series} moved from {before:.3g} to {after:.3g}",
            values={"before": before, "after": after},
        )


class Reading(NamedTuple):
    """What the rules look at; None where nothing was counted.

    Attributes
    ----------
    consumed, dead, misrouted, capped
        Events of the last minute: read, put to dead-letters, found in a partition that is not their user's,
        turned away because their visitor sent too many.
    refused, aside, rejected, versions
        Of train, in the last minute: messages that it could not read; lists of partitions unlike the others,
        which it did not learn from; versions that the gate turned away, of how many.
    model_age_s
        Seconds since train last published a version.
    learning
        Whether examples arrived at train within that time.
    slate_p99_ms
        99th percentile from an event to its slate, in the last minute.
    """

    consumed: int = 0
    dead: int = 0
    misrouted: int = 0
    capped: int = 0
    refused: int = 0
    aside: int = 0
    rejected: int = 0
    versions: int = 0
    model_age_s: float | None = None
    learning: bool = False
    slate_p99_ms: float | None = None


def broken_rules(reading: Reading, ts: int) -> list[Alert]:
    """Alerts for every rule that the reading breaks, as of `ts` (ms).

    >>> [a.rule for a in broken_rules(Reading(consumed=1000, dead=11, misrouted=1), 0)]
    ['dead_letters', 'misrouted']
    >>> broken_rules(Reading(consumed=1000, dead=10, slate_p99_ms=1000.0, model_age_s=300.0), 0)
    []
    """
    alerts = []

    def alert(rule: str, severity: str, message: str, **values: float) -> None:
        alerts.append(Alert(rule=rule, ts=ts, severity=severity, message=message, values=values))

    share = reading.dead / max(reading.consumed, reading.dead, 1)
    if share > DEAD_SHARE:
        alert(
            "dead_letters",
            "error",
            f"{share:.1%} of the last minute's events went to dead-letters; see liverank dead-letters",
            dead=reading.dead,
            consumed=reading.consumed,
        )
    if reading.misrouted:
        alert(
            "misrouted",
            "error",
            f"{reading.misrouted} events came in another partition than their user's: producers must set "
            "partitioner=murmur2_random",
            misrouted=reading.misrouted,
        )
    if reading.capped:
        alert(
            "flood",
            "warning",
            f"{reading.capped} events of the last minute were turned away: their visitors sent more than "
            "features.events_per_s",
            capped=reading.capped,
            consumed=reading.consumed,
        )
    _broken_in_train(reading, alert)
    if reading.learning and reading.model_age_s is not None and reading.model_age_s > STALE_S:
        alert(
            "model_stale",
            "error",
            f"no model version for {reading.model_age_s:.0f} s though examples arrive",
            age_s=reading.model_age_s,
        )
    if reading.slate_p99_ms is not None and reading.slate_p99_ms > SLOW_MS:
        alert(
            "slow_slates",
            "warning",
            f"1 in 100 slates takes {reading.slate_p99_ms:.0f} ms from its event, or longer",
            p99_ms=reading.slate_p99_ms,
        )
    return alerts


def _broken_in_train(reading: Reading, alert: Callable[..., None]) -> None:
    """What train kept out of the model."""
    if reading.refused:
        alert(
            "examples_refused",
            "error",
            f"train could not read {reading.refused} messages of the last minute; see liverank dead-letters",
            refused=reading.refused,
        )
    if reading.aside:
        alert(
            "partition_unlike_others",
            "error",
            f"{reading.aside} lists of the last minute are not learned from: their partition is unlike the "
            "others. Who writes its events?",
            aside=reading.aside,
        )
    if reading.rejected >= max(REJECTED, REJECTED_SHARE * reading.versions):
        alert(
            "versions_rejected",
            "warning",
            f"{reading.rejected} of the last minute's {reading.versions} versions were worse than the ones "
            "before, and taken back",
            rejected=reading.rejected,
            versions=reading.versions,
        )


class Hush:
    """Lets an alert through unless the same rule spoke within the last minute."""

    def __init__(self, quiet_ms: int = QUIET_MS) -> None:
        self.quiet_ms = quiet_ms
        self._spoke: dict[str, int] = {}

    def let_through(self, alerts: list[Alert], now_ms: int) -> list[Alert]:
        """Those of `alerts` to send at `now_ms`.

        >>> hush, alert = Hush(), Alert(rule="misrouted", ts=0, severity="error", message="")
        >>> [len(hush.let_through([alert, alert], now)) for now in (0, 59_999, 60_000)]
        [1, 0, 1]
        """
        passed = []
        for alert in alerts:
            if now_ms - self._spoke.get(alert.rule, now_ms - self.quiet_ms) >= self.quiet_ms:
                self._spoke[alert.rule] = now_ms
                passed.append(alert)
        return passed
