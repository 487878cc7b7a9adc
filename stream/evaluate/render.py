"""Figures as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stream.evaluate.figures import Figures
from stream.evaluate.measures import Probability
from stream.evaluate.run import Speed


def render(figures: Figures) -> RenderableType:
    """Tables of what there is."""
    lines = [(Text(title, "bold"), table, "") for title, table in _tables(figures)]
    left_out = (
        f"{figures.refused:,} events refused, {figures.capped:,} of floods left out; "
        f"{figures.set_aside:,} batches set aside by the gate"
    )
    return Group(*(part for each in lines for part in each), left_out)


def tell(speed: Speed) -> str:
    """How fast it was, in a line.

    >>> tell(Speed(1000, 4.0, 1.0, 0.5, 1.5, 1.0))
    '1,000 events in 4.0 s (250/s): start 1.0 s, rank 0.5 s, others 1.5 s, train alone 1.0 s'
    """
    rate = speed.events / max(speed.seconds, 1e-9)
    return (
        f"{speed.events:,} events in {speed.seconds:.1f} s ({rate:,.0f}/s): "
        f"start {speed.start:.1f} s, rank {speed.rank:.1f} s, "
        f"others {speed.others:.1f} s, train alone {speed.train:.1f} s"
    )


def _tables(figures: Figures) -> Iterator[tuple[str, Table]]:
    """Titles and tables."""
    if figures.ranking:
        what = f"of {figures.lists:,} shown lists with a click"
        yield f"MRR {what}", _by_part(_pick(figures.ranking, "mrr"))
        yield f"NDCG@10 {what}", _by_part(_pick(figures.ranking, "ndcg"))
    for task, by_who in figures.probability.items():
        for part in next(iter(by_who.values())):
            yield f"Chance of a {task} on each item shown, {part}", _probability(by_who, part)
    if figures.next_item:
        asked = next(iter(figures.next_item.values()))["all"].asked
        what = f"of the next item new to the visitor, {asked:,} of {figures.acts:,} acts"
        yield f"HR@20 {what}", _by_part(_pick(figures.next_item, "hr"))
        yield f"MRR@20 {what}", _by_part(_pick(figures.next_item, "mrr"))
        yield "Recall@200 by the source that offered the item first", _by_part(figures.recall)
    if figures.sync:
        yield "The model renewed at intervals, second half of the stream", _sync(figures)


def _pick(figures: Mapping[str, Mapping[str, object]], name: str) -> dict[str, dict[str, float]]:
    return {
        who: {part: getattr(each, name) for part, each in by_part.items()} for who, by_part in figures.items()
    }


def _by_part(rows: Mapping[str, Mapping[str, float]]) -> Table:
    table = _table("", next(iter(rows.values())))
    for name, by_part in rows.items():
        table.add_row(name, *map(_number, by_part.values()))
    return table


def _probability(by_who: Mapping[str, Mapping[str, Probability]], part: str) -> Table:
    table = _table("", ["AUC", "log loss", "entropy", "calibrated", "ECE", "positives"])
    for who, by_part in by_who.items():
        if part in by_part:
            f = by_part[part]
            values = (f.auc, f.log_loss, f.normalised_entropy, f.calibration, f.ece)
            table.add_row(who, *map(_number, values), f"{f.positives:,}")
    return table


def _sync(figures: Figures) -> Table:
    table = _table("renewed every", ["AUC", "MRR", "HR@20"])
    for interval, figure in figures.sync.items():
        table.add_row(interval, *map(_number, (figure.auc, figure.mrr, figure.hr)))
    return table


def _table(first: str, columns: Iterable[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _number(value: float | None) -> str:
    """Four places, or a dash.

    >>> _number(0.61234), _number(None)
    ('0.6123', '-')
    """
    return "-" if value is None else f"{value:.4f}"
