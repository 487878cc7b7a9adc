"""The figures of a run: for each of those who predicted, over parts of the stream."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import numpy as np

from models.batch import TASKS, Array
from stream.evaluate.following import Placed
from stream.evaluate.lists import Table
from stream.evaluate.measures import (
    Hits,
    Probability,
    Ranking,
    clicked_lists,
    hits,
    judge_lists,
    probability,
    ranking,
)


class Synced(msgspec.Struct, frozen=True):
    """One row of the table of `--sync`; None where the stream does not have it."""

    mrr: float
    auc: float | None = None
    hr: float | None = None


class Figures(msgspec.Struct, frozen=True):
    """All figures, by who predicted and part of the stream; what a stream does not have is empty.

    Attributes
    ----------
    lists, acts
        Lists with a click and two items or more; clicks, carts and purchases. The parts are cut by them.
    ranking
        Who -> part -> order of lists.
    probability
        Task -> who -> part -> probabilities.
    next_item
        Who -> part -> items new to the user.
    recall
        Source -> part -> share of those items among the 200 candidates, by the source that offered it first;
        and where a source alone has all the places.
    sync
        Interval -> figures over the second half.
    refused, capped, set_aside
        Events that rank could not take, or left out as part of a flood; batches that the gate turned away.
    """

    lists: int = 0
    acts: int = 0
    ranking: dict[str, dict[str, Ranking]] = {}
    probability: dict[str, dict[str, dict[str, Probability]]] = {}
    next_item: dict[str, dict[str, Hits]] = {}
    recall: dict[str, dict[str, float]] = {}
    sync: dict[str, Synced] = {}
    refused: int = 0
    capped: int = 0
    set_aside: int = 0


def parts(n: int) -> dict[str, slice]:
    """Parts of n things.

    >>> parts(17)["eighths 2-8"], parts(17)["last fifth"]
    (slice(2, 17, None), slice(13, 17, None))
    """
    return {
        "all": slice(0, n),
        "first eighth": slice(0, n // 8),
        "eighths 2-8": slice(n // 8, n),
        "second half": slice(n * 4 // 8, n),
        "last fifth": slice(int(n * 0.8), n),
    }


def figures_of_lists(table: Table, synced: Collection[str], half: int) -> Figures:
    """Figures of shown lists.

    Parts are cut by the lists with a click and two items or more; probabilities are judged on all lists
    between the same borders.

    Parameters
    ----------
    synced
        Those of `table` that belong to `Figures.sync`.
    half
        Offset of the event from which on they are judged.
    """
    judged = clicked_lists(table.start, table.named)
    cuts = parts(len(judged))
    order = {who: judge_lists(table.start, score, table.named) for who, score in table.score.items()}
    later = slice(int(np.searchsorted(table.offset[judged], half)), len(judged))
    items = {part: _items(table, judged, cut) for part, cut in cuts.items()}
    late = _items(table, judged, later)
    own = [who for who in order if who not in synced]
    return Figures(
        lists=len(judged),
        ranking={who: {part: _ranking(order[who], cut) for part, cut in cuts.items()} for who in own},
        probability={
            task: {who: _probabilities(table, who, t, items) for who in own if who in table.p}
            for t, task in enumerate(TASKS)
            if (table.labels >> t & 1).any()
        },
        sync={
            who: Synced(_ranking(order[who], later).mrr, auc=_probability(table, who, 0, late).auc)
            for who in synced
        },
    )


def figures_of_acts(placed: Placed, acts: int, synced: Collection[str], half: int) -> Figures:
    """Figures of next items, of `acts` acts in all; `synced` and `half` as for `figures_of_lists`."""
    cuts = {part: _between(placed.number, cut) for part, cut in parts(acts).items()}
    later = placed.offset >= half
    late = {who: hits(placed.places[who][later]) for who in synced if who in placed.places}
    return Figures(
        acts=acts,
        next_item={
            who: {part: hits(place[mine]) for part, mine in cuts.items()}
            for who, place in placed.places.items()
            if who not in synced
        },
        recall={
            source: {part: float(found[mine].mean()) if mine.any() else 0.0 for part, mine in cuts.items()}
            for source, found in placed.recalled.items()
        },
        sync={who: Synced(each.mrr, hr=each.hr) for who, each in late.items()},
    )


def _ranking(order: tuple[Array, Array], cut: slice) -> Ranking:
    return ranking(order[0][cut], order[1][cut])


def _items(table: Table, judged: Array, cut: slice) -> slice:
    """Items of all lists from the first to before the one after the last of `judged[cut]`."""
    borders = np.append(judged, len(table.start) - 1)
    first = 0 if cut.start == 0 else int(borders[cut.start])
    return slice(int(table.start[first]), int(table.start[borders[cut.stop]]))


def _probabilities(table: Table, who: str, task: int, items: dict[str, slice]) -> dict[str, Probability]:
    made = {part: _probability(table, who, task, where) for part, where in items.items()}
    return {part: each for part, each in made.items() if each.predictions}


def _probability(table: Table, who: str, task: int, items: slice) -> Probability:
    p, happened = table.p[who][items, task], (table.labels[items] >> task & 1).astype(bool)
    said = ~np.isnan(p)
    return probability(p[said], happened[said])


def _between(number: Array, cut: slice) -> Array:
    inside: Array = (number >= cut.start) & (number < cut.stop)
    return inside
