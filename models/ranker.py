"""The ranking model as pure functions of named weights: the same code trains, predicts and is exported.

The score begins with a rule for lists in somebody else's order. Numbers are encoded piecewise linearly
(Gorishniy et al., arXiv 2203.05556); a deep tower and a wide part on that encoding say how items with such
numbers differ from it. To this the rows add what is particular to the item: a
bias, and the dot product with the user. An item is its row plus its category's row; a user is the decayed
mean of the history's items. The tower does not see the rows, and so does not rely on what few examples taught
them. Shape legend: `models.batch`; W is `Shape.bin_width`.

Dense weights, by name::

    edges          [F, bins + 1]   quantiles of each feature; counted, not learned
    place_share    [PLACES + 1]    share of each place in what was shown; counted, not learned
    lately         [T]             level of each task, see `models.lately`; counted, not learned
    encode         [F, W, bins]    of each feature's filled bins to W values
    wide           [2, F, bins]    of filled bins straight to the score and to a click; wide_bias [2]
    history_decay  [1]             how fast an interaction fades with its age
    history_place  [H]             log weight of the k-th newest interaction
    deep1          [hidden, F W]   first layer, of those values; deep1_bias [hidden]
    deep2          [hidden/2, hidden]; deep2_bias; deep3 [hidden/2]
    dot            [1]             scale of user . item
    place_score, place_click [PLACES + 1]
    click, cart, purchase [hidden/2 + 2]   heads: on the hidden layer, the score, and a constant
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from models.batch import FEATURE, TASKS, Array, F, Shape

LIST_RECENCY, PRIOR_RANK = FEATURE["list_recency"], FEATURE["prior_rank"]

PLACES = 64
"""Places of a slate with a bias of their own; later ones share the last."""

MAX_PLACE = 1e4
"""Last place that the rule tells apart."""

COUNTED = ("edges", "place_share", "lately")
"""Dense arrays that are set by counting and take no gradient."""

SHRINK = 0.1
"""Added to the weights' sum of a history, so that a faded history is a small vector, not a loud one."""

WIDE, WIDE_CLICK, HEAD = 0.1, 0.03, 0.3
"""Scales of sums over many inputs that fill together: Adam moves every weight alike, so that without them
each step would shift the level of all scores."""

PLACE = 5.0
"""Scale of the effect of a place, for the opposite reason: a place has one weight, and may matter a lot."""

RULE_TOUCHED, RULE_PLACE = 3.0, 0.4
"""What is known before anything is learned: log-odds of the item touched last, and by log place."""

Weights = Mapping[str, Tensor]


class Outputs(NamedTuple):
    """What the model says of each item; each [N].

    `score` orders; the others are log-odds: of a click, and of a cart and a purchase given a click.
    """

    score: Tensor
    click: Tensor
    cart: Tensor
    purchase: Tensor


def initial(shape: Shape, rng: np.random.Generator) -> dict[str, Array]:
    """Dense weights (float32) before anything was learned."""
    width, hidden, half = shape.bin_width, shape.hidden, shape.hidden // 2
    inputs = F * width

    def normal(fan_in: int, *size: int) -> Array:
        random: Array = rng.standard_normal(size) * np.sqrt(2 / fan_in)
        return random.astype(np.float32)

    # p_click starts as sigmoid(0.5 s - 3): few of the shown items are clicked
    head = np.array([0] * half + [0, -1], np.float32)
    return {
        "edges": np.zeros((F, shape.bins + 1), np.float32),
        "place_share": np.zeros(PLACES + 1, np.float32),
        "lately": np.zeros(len(TASKS), np.float32),
        "encode": normal(shape.bins, F, width, shape.bins),
        "wide": np.zeros((2, F, shape.bins), np.float32),
        "wide_bias": np.zeros(2, np.float32),
        "history_decay": np.full(1, -1, np.float32),
        "history_place": -0.05 * np.arange(shape.history, dtype=np.float32),
        "deep1": normal(inputs, hidden, F * width),
        "deep1_bias": np.zeros(hidden, np.float32),
        "deep2": normal(hidden, half, hidden),
        "deep2_bias": np.zeros(half, np.float32),
        "deep3": 0.1 * normal(half, half),
        "dot": np.ones(1, np.float32),
        "place_score": np.zeros(PLACES + 1, np.float32),
        "place_click": np.zeros(PLACES + 1, np.float32),
        "click": np.array([0] * half + [0.5, -3], np.float32),
        "cart": head.copy(),
        "purchase": head.copy(),
    }


def users(w: Weights, history: Tensor, age: Tensor) -> Tensor:
    """Decayed mean of each user's history, [U, D].

    u = sum_h w_h v_h / (sum_h w_h + SHRINK),  w_h = exp(place_h - softplus(decay) log(1 + age_h))

    Parameters
    ----------
    history : [U, H, D]
        Item vectors, newest first.
    age : [U, H]
        Seconds; negative where empty.
    """
    fade = w["history_place"] - softplus(w["history_decay"]) * torch.log1p(age.clamp(min=0))
    weight = torch.exp(fade) * (age >= 0)
    total = torch.matmul(weight.unsqueeze(1), history).squeeze(1)
    return total / (weight.sum(1, keepdim=True) + SHRINK)


def fill(w: Weights, x: Tensor) -> Tensor:
    """Piecewise-linear encoding of raw features [N, F], [F, bins, N].

    A value fills the bins below it, and its own bin in part: clip((x - low) / (high - low), 0, 1).
    An empty bin (low = high) is a step above its edge.
    """
    low, high = w["edges"][:, :-1, None], w["edges"][:, 1:, None]
    filled = torch.nan_to_num(x).t().contiguous().unsqueeze(1) - low
    return filled.mul_(1 / (high - low).clamp(min=1e-6)).clamp_(0, 1)


def rule(x: Tensor) -> Tensor:
    """Score [N] of raw features [N, F] before anything was learned: touched first, then the given order.

    Zero for all items where the order is not somebody else's.
    """
    touched, place = torch.nan_to_num(x[:, LIST_RECENCY]), torch.nan_to_num(x[:, PRIOR_RANK])
    return RULE_TOUCHED * touched.clamp(0.0, 1.0) - RULE_PLACE * torch.log(place.clamp(1.0, MAX_PLACE))


def forward(
    w: Weights, x: Tensor, item: Tensor, bias: Tensor, user: Tensor, of: Tensor, place: Tensor
) -> Outputs:
    """Score N items for their users; parameters are those of `of_rows` and `scores`."""
    return scores(w, x, of_rows(w, item, bias, user, of), place)


def of_rows(w: Weights, item: Tensor, bias: Tensor, user: Tensor, of: Tensor) -> Tensor:
    """What the rows add to the score, [N].

    Parameters
    ----------
    item : [N, D]
        Item row plus category row.
    bias : [N]
        Of the item row.
    user : [U, D]
        From `users`.
    of : int [N]
        Index of the item's user.
    """
    return w["dot"] * (user.index_select(0, of) * item).sum(1) + bias


def scores(w: Weights, x: Tensor, rows: Tensor, place: Tensor) -> Outputs:
    """Score N items.

    Gradients of the click head stop at the score and the hidden layer: probabilities are fitted to the
    ranking, and do not move it.

    Parameters
    ----------
    x : float [N, F]
        Raw features.
    rows : [N]
        From `of_rows`.
    place : int [N]
        Place in a slate of ours from 1; 0 for none. Moves the click's log-odds only; training adds
        `place_effect` to the score by itself, serving does not.
    """
    # items are columns here, [..., N]: bins, values and units then are rows that lie side by side
    filled = fill(w, x)
    encoded = torch.bmm(w["encode"], filled).flatten(0, 1)
    hidden = relu(torch.addmm(w["deep1_bias"].unsqueeze(1), w["deep1"], encoded))
    hidden = relu(torch.addmm(w["deep2_bias"].unsqueeze(1), w["deep2"], hidden))
    wide, wide_click = w["wide"].flatten(1) @ filled.flatten(0, 1) + w["wide_bias"].unsqueeze(1)
    score = rule(x) + w["deep3"] @ hidden + WIDE * wide + rows
    still = score.detach()
    click = (
        _head(w["click"], hidden.detach(), still)
        + WIDE_CLICK * wide_click
        + place_effect(w, "place_click", place)
    )
    cart, purchase = _head(w["cart"], hidden, still), _head(w["purchase"], hidden, still)
    of_click, of_cart, of_purchase = w["lately"]
    return Outputs(score, click + of_click, cart + of_cart, purchase + of_purchase)


def place_effect(w: Weights, name: str, place: Tensor) -> Tensor:
    """What a place adds, [N], with mean 0 over what was shown: no place (0) means an average one."""
    effect = PLACE * (w[name] - (w["place_share"] * w[name]).sum())
    return effect.index_select(0, place.clamp(max=PLACES)) * (place > 0)


def probabilities(out: Outputs) -> Tensor:
    """Of each task, over the entire space of impressions, [N, T] (ESMM: Ma et al., arXiv 1804.07931).

    p_cart = p_click p(cart | click), and likewise for a purchase.
    """
    click, cart, purchase = torch.sigmoid(torch.stack([out.click, out.cart, out.purchase]))
    return torch.stack([click, click * cart, click * purchase], 1)


def _head(weight: Tensor, hidden: Tensor, score: Tensor) -> Tensor:
    return HEAD * (weight[:-2] @ hidden) + weight[-2] * score + weight[-1]
