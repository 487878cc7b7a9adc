"""What each arm would have chosen: sums for off-policy estimates, from the explored places of all arms.

At an explored place (`stream.rank.explore`) an item a was drawn uniformly from a pool of m; in 1 of o slates
of that arm it stands there so. Every arm's ranking p has a best item b_p in that pool, which is known when
the slate is made; the trace says for which arms a = b_p. So for every arm, whoever's slate it was, the value

    V_p = expected clicks at a place that is emptied and filled with p's choice among the pool,
          the rest of the slate being what it is, over all places of all slates of arms that explore

has the estimates, over explored places i shown, with c_i the clicks there,

    g_i = o_i / m_i          how many places (explored or not) this one stands for
    w_i = o_i 1{a_i = b_pi}  one over the probability that the item of p's choice was drawn
    IPS = sum(w c) / sum(g)      (Horvitz and Thompson, 1952): unbiased for a fixed number of places
    SNIPS = sum(w c) / sum(w)    (Swaminathan and Joachims, NeurIPS 2015): nearly so, and far less noisy

All arms are compared on the same places, visitors and moments, which their own traffic never is. What it does
not say: how whole slates of p would do, or items outside the pool: p is asked for one place at a time, among
items that the arm whose slate it is ranks high. sum(w) / sum(g) is 1 but for chance where p has a choice in
every pool (Saito and Joachims, RecSys 2021: look at the support first); sum(w)^2 / sum(w^2) says how many
places speak. Policy `UNIFORM` takes any item of the pool: w_i = g_i.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.counts import Counts
from stream.grouping import Coded, Column
from stream.rank.arms import BUCKETS
from stream.rank.decode import CLICK, IMPRESSION, Columns
from stream.rank.given import Given, Seen

Array = NDArray[Any]

UNIFORM = "~uniform"
"""The policy that draws, and so the value of exploring; no arm can have its name."""


def count_choices(
    counts: Counts, partition: int, columns: Columns, given: Given, seen: Seen, arms: list[str]
) -> None:
    """Count explored places that were shown, and the clicks on them, for every arm's choice.

    Parameters
    ----------
    arms
        Names by code; the last one is the strangers', who are not explored with.
    """
    shows = np.flatnonzero((columns.kind == IMPRESSION) & (given.event["explored"] > 0))
    if len(shows):
        weights = given.event[shows]
        for policy, weight in _weights(weights, arms):
            sums = {"shown": 1, "matched": weight > 0, "places": _stands_for(weights)}
            sums |= {"weight": weight, "squares": weight**2}
            _add(counts, partition, columns, shows, weights["arm"], arms, policy, sums)
    acts = np.flatnonzero(columns.kind == CLICK)
    act = seen.act[given.event["row"][acts]]
    if (act["odds"] > 0).any():
        acts, act = acts[act["odds"] > 0], act[act["odds"] > 0]
        for policy, weight in _weights(act, arms):
            hit = weight > 0
            sums = {"clicks": weight[hit]}
            _add(counts, partition, columns, acts[hit], act["arm"][hit], arms, policy, sums)


def _weights(explored: Array, arms: list[str]) -> list[tuple[str, Array]]:
    """Policies, and for each the weights (float64 [n]) of the places; `explored` has the trace's fields."""
    odds = explored["odds"].astype(np.float64)
    chosen = [(name, odds * (explored["chosen"] >> code & 1)) for code, name in enumerate(arms[:-1])]
    return [*chosen, (UNIFORM, _stands_for(explored))]


def _stands_for(explored: Array) -> Array:
    """How many places each explored one stands for."""
    places: Array = explored["odds"].astype(np.float64) / explored["pool"]
    return places


def _add(
    counts: Counts,
    partition: int,
    columns: Columns,
    events: Array,
    arm: Array,
    arms: list[str],
    policy: str,
    sums: dict[str, Any],
) -> None:
    dims: dict[str, Column] = {
        "second": columns.ts[events] // 1000,
        "arm": Coded(arm, arms),
        "policy": policy,
        "bucket": (columns.user[events] % np.uint64(BUCKETS)).astype(np.int64),
    }
    counts.add(partition, "choices", dims, sums)
