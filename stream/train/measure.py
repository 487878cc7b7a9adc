"""What train counts: how good predictions were, how soon labels were learned, versions, health."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from models import quality
from models.batch import CLICK, TASKS, Array, Lists
from stream.counts import Counts, latency_bin
from stream.grouping import Column
from stream.train.buffer import Buffer, Guess
from stream.train.join import items_of, select

ROLE = "train"


def count_health(counts: Counts, partition: int, rows: Sequence[tuple[int, str, str, int]]) -> None:
    """Count rows of (second, counter, reason, count) in ``health``; those that count 0 are left out."""
    rows = [row for row in rows if row[3]]
    if rows:
        second, counter, reason, amount = (list(column) for column in zip(*rows, strict=True))
        dims: dict[str, Column] = {"second": second, "role": ROLE, "counter": counter, "reason": reason}
        counts.add(partition, "health", dims, {"count": amount})


def count_each(counts: Counts, counter: str, partition: Array, broker_ts: Array) -> None:
    """Count one for each row, by its partition and the second of its broker time (ms)."""
    for own in np.unique(partition).tolist():
        dims = {
            "second": broker_ts[partition == own] // 1000,
            "role": ROLE,
            "counter": counter,
            "reason": "",
        }
        counts.add(own, "health", dims, {"count": 1})


def read_gauges(counts: Counts, partition: int, second: int, values: Mapping[str, float]) -> None:
    """Note what stands at present, in ``gauges``."""
    for gauge, value in values.items():
        dims: dict[str, Column] = {"second": second, "role": ROLE, "gauge": gauge}
        counts.add(partition, "gauges", dims, {"value": float(value)})


def count_learned(counts: Counts, partition: Array, broker_ts: Array, now: float) -> None:
    """Count how long labels took from the broker (ms) to a published version (at `now`, s)."""
    upto = latency_bin(now * 1000 - broker_ts)
    for own in np.unique(partition).tolist():
        mine = partition == own
        dims = {"second": broker_ts[mine] // 1000, "kind": "event_to_learned", "upto": upto[mine]}
        counts.add(own, "freshness", dims, {"count": 1})


def count_quality(counts: Counts, buffer: Buffer, numbers: Array, tasks: int, lag: str, guess: Guess) -> None:
    """Count how good a model's predictions of some lists were, on the labels of now.

    Lists that nobody saw do not count. The second of ``quality`` and ``ranking`` is that of the list's
    broker time.

    Parameters
    ----------
    tasks
        Those judged now, as bits; the order is judged with the clicks.
    lag
        Name of the model: how much older it was than the newest.
    guess
        Its predictions of the items of these lists.
    """
    lists, seen = buffer.gather(numbers), ~buffer.column("unseen", numbers)
    partition, second = buffer.column("partition", numbers), buffer.column("broker_ts", numbers) // 1000
    for own in np.unique(partition[seen]).tolist():
        index = np.flatnonzero(seen & (partition == own))
        item = items_of(lists.start, index)
        part = Guess(guess.score[item], guess.p[item])
        _count_guess(counts, own, second[index], lag, part, select(lists, index), tasks)


def _count_guess(
    counts: Counts, partition: int, second: Array, lag: str, guess: Guess, lists: Lists, tasks: int
) -> None:
    """The same of one partition's lists, each of its own second."""
    by_item = np.repeat(second, np.diff(lists.start))
    for t, task in enumerate(TASKS):
        if not tasks >> t & 1:
            continue
        at, h = quality.histograms(guess.p[:, t], lists.labels >> t & 1, by_item)
        dims: dict[str, Column] = {"second": at, "lag": lag, "task": task, "bin": h.bin}
        sums = {"count": h.count, "positives": h.positives, "predicted": h.predicted, "loss": h.loss}
        counts.add(partition, "quality", dims, sums)
    if tasks & CLICK:
        judged = quality.ranks(lists.start, guess.score, lists.labels)
        order: dict[str, Column] = {"lists": 1, "reciprocal": judged.reciprocal, "ndcg": judged.ndcg}
        counts.add(partition, "ranking", {"second": second[judged.list], "lag": lag}, order)
