"""What a step computes, for the CPU: compiled, with the gradients written out.

In torch a step is hundreds of operations, each of which takes longer to call than to run. `scores` and
`total` are those of `models.ranker` and `models.losses`, which say what they mean, run on a GPU and are
exported.

A value fills the bins below its own, and its own in part; what all these are worth to the first layer is
looked up.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from models.batch import TASKS, Array
from models.losses import LEVEL, SURE, Loss, fake_negative_calibrated, fake_negative_weighted, log_loss
from models.ranker import HEAD, PLACE, PLACES, WIDE, WIDE_CLICK, Outputs, Weights, place_effect, rule
from models.tensors import Batch

NARROW = np.float32(1e-6)
"""Narrower bins are as wide as this, as for `models.ranker.fill`."""

TILE = 64
"""Items whose sums are near at hand while features pass."""

FAST = {"contract", "nsz"}
"""Multiply and add at once; what is no number stays so."""

ONE = np.float32(1)
LOG, WEIGHTED, CALIBRATED = range(3)
KINDS: dict[Loss, int] = {
    log_loss: LOG,
    fake_negative_weighted: WEIGHTED,
    fake_negative_calibrated: CALIBRATED,
}
HEADS = ("click", "cart", "purchase")


class _Layers(NamedTuple):
    """What `_forward` computes, and `_backward` needs.

    Attributes
    ----------
    at : Array, ...
        Arguments of `_place`.
    table, into
        What a full bin is worth to the first layer, [F, bins, hidden + 2], and the layer's weights for it,
        [F, W, hidden].
    one, two, score : [N, hidden], [N, hidden / 2], [N]
    logits : [T, N]
        Without what belongs to a place.
    heads : [T, hidden / 2 + 2]
    """

    at: tuple[Array, ...]
    table: Tensor
    into: Tensor
    one: Tensor
    two: Tensor
    score: Tensor
    logits: Tensor
    heads: Tensor


@torch.no_grad()
def scores(w: Weights, x: Tensor, rows: Tensor, place: Tensor) -> Outputs:
    """`models.ranker.scores`, without gradients."""
    layers = _forward(w, x, rows)
    click, cart, purchase = layers.logits
    click += place_effect(w, "place_click", place)
    return Outputs(layers.score, click, cart, purchase)


@torch.no_grad()
def total(
    w: Weights, rows: Tensor, batch: Batch, conversions: Loss
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """`models.losses.total`, and the gradients of its first: of `rows`, and of weights by name."""
    layers = _forward(w, batch.x, rows)
    found = {name: torch.zeros(PLACES + 1) for name in ("place_score", "place_click")}
    slopes = torch.empty(1 + len(TASKS), len(rows))
    figures = _losses(
        layers.score.numpy(), layers.logits.numpy(), batch.of.numpy(), batch.place.numpy(),
        batch.clicked.numpy(), batch.positive.numpy(), batch.negative.numpy(), batch.share.numpy(),
        w["place_score"].detach().numpy(), w["place_click"].detach().numpy(), w["place_share"].numpy(),
        KINDS[conversions], len(batch.age),
        slopes.numpy(), found["place_score"].numpy(), found["place_click"].numpy(),
    )  # fmt: skip
    return torch.tensor(figures).unbind(), {"rows": slopes[0], **_backward(w, layers, slopes), **found}


def _forward(w: Weights, x: Tensor, rows: Tensor) -> _Layers:
    features, width, bins = w["encode"].shape
    n, hidden = len(x), len(w["deep1_bias"])
    # nothing comes between `encode` and the first layer: their product is taken once, not for each item
    into = w["deep1"].view(hidden, features, width).permute(1, 2, 0)
    table = torch.cat([torch.bmm(w["encode"].transpose(1, 2), into), w["wide"].permute(1, 2, 0)], 2)
    x = torch.nan_to_num(x).t().contiguous()
    by_bin, by_item = (features, bins), (features, n)
    at = (
        x.numpy(), np.empty(by_bin, np.float32), np.empty(by_bin, np.float32),
        np.empty(by_item, np.uint8), np.empty(by_item, np.uint8), np.empty(by_item, np.float32),
    )  # fmt: skip
    _place(w["edges"].numpy(), *at)  # type: ignore[call-arg]
    first = torch.empty(n, hidden + 2)
    _add(*at, table.numpy(), torch.cat([w["deep1_bias"], w["wide_bias"]]).numpy(), first.numpy())  # type: ignore[call-arg]
    one = first[:, :hidden].relu()
    two = torch.addmm(w["deep2_bias"], one, w["deep2"].t()).relu_()
    score = torch.addmv(rows + rule(x.t()), two, w["deep3"]).add_(first[:, hidden], alpha=WIDE)
    heads = torch.stack([w[name] for name in HEADS])
    level = heads[:, -1:] + w["lately"].unsqueeze(1)
    logits = torch.addmm(level, heads[:, :-2], two.t(), alpha=HEAD).addcmul_(heads[:, -2:-1], score)
    logits[0].add_(first[:, hidden + 1], alpha=WIDE_CLICK)
    return _Layers(at, table, into, one, two, score, logits, heads)


def _backward(w: Weights, layers: _Layers, slopes: Tensor) -> dict[str, Tensor]:
    """Gradients of weights, from those of the score and of logits, [1 + T, N]."""
    at, table, into, one, two, score, _, heads = layers
    n, hidden = one.shape
    of_heads = torch.empty_like(heads)
    torch.mul(slopes[1:] @ two, HEAD, out=of_heads[:, :-2])
    of_heads[:, -2], of_heads[:, -1] = slopes[1:] @ score, slopes[1:].sum(1)
    # probabilities do not move the score, nor a click's what is below it
    back = torch.cat([w["deep3"].unsqueeze(0), HEAD * heads[:, :-2]])
    back[1] = 0
    of_two = (slopes.t() @ back).mul_(two > 0)
    first = torch.empty(n, hidden + 2)
    torch.mul(of_two @ w["deep2"], one > 0, out=first[:, :hidden])
    first[:, hidden], first[:, hidden + 1] = WIDE * slopes[0], WIDE_CLICK * slopes[1]
    worth, start = torch.empty_like(table), torch.empty(hidden + 2)
    _add_back(*at, worth.numpy(), start.numpy(), first.numpy())  # type: ignore[call-arg]
    units = worth[:, :, :hidden].transpose(1, 2)
    return {
        "encode": torch.bmm(into, units),
        "wide": worth[:, :, hidden:].permute(2, 0, 1),
        "wide_bias": start[hidden:],
        "deep1": torch.bmm(units, w["encode"].transpose(1, 2)).transpose(0, 1).flatten(1),
        "deep1_bias": start[:hidden],
        "deep2": of_two.t() @ one,
        "deep2_bias": of_two.sum(0),
        "deep3": slopes[0] @ two,
        **dict(zip(HEADS, of_heads, strict=True)),
    }


@numba.njit(cache=True, fastmath=FAST)
def _place(edges: Array, x: Array, low: Array, scale: Array, full: Array, end: Array, part: Array) -> None:
    """Where values x [F, N] are among bins with `edges` [F, bins + 1].

    `full` ones, then up to `end` those in part, `part` of the first of these. Where all are full the last one
    counts as in part, wholly. Only of bins that are too narrow may more than one be in part.
    """
    features, bins = low.shape
    for f in range(features):
        full[f], end[f] = 0, 0
        for k in range(bins):
            low[f, k] = edges[f, k]
            scale[f, k] = ONE / max(edges[f, k + 1] - edges[f, k], NARROW)
            for n in range(x.shape[1]):
                filled = (x[f, n] - low[f, k]) * scale[f, k]
                full[f, n] += np.uint8(filled >= 1)
                end[f, n] += np.uint8(filled > 0)
        for n in range(x.shape[1]):
            k = full[f, n] = min(full[f, n], bins - 1)
            part[f, n] = min(max((x[f, n] - low[f, k]) * scale[f, k], np.float32(0)), ONE)


@numba.njit(cache=True, fastmath=FAST)
def _add(
    x: Array, low: Array, scale: Array, full: Array, end: Array, part: Array,
    table: Array, start: Array, out: Array,
) -> None:  # fmt: skip
    """Set `out` [N, V] to `start` [V] and what the bins that x fills are worth, by `table` [F, bins, V]."""
    features, bins, values = table.shape
    below = np.zeros_like(table)
    for f in range(features):
        for k in range(1, bins):
            for v in range(values):
                below[f, k, v] = below[f, k - 1, v] + table[f, k - 1, v]
    for first in range(0, len(out), TILE):
        last = min(first + TILE, len(out))
        for n in range(first, last):
            for v in range(values):
                out[n, v] = start[v]
        for f in range(features):
            for n in range(first, last):
                k, t = full[f, n], part[f, n]
                if k == 0 and t == 0:
                    continue
                for v in range(values):
                    out[n, v] += below[f, k, v] + t * table[f, k, v]
                for j in range(k + 1, end[f, n]):
                    t = min((x[f, n] - low[f, j]) * scale[f, j], ONE)
                    for v in range(values):
                        out[n, v] += t * table[f, j, v]


@numba.njit(cache=True, fastmath=FAST)
def _add_back(
    x: Array, low: Array, scale: Array, full: Array, end: Array, part: Array,
    table: Array, start: Array, out: Array,
) -> None:  # fmt: skip
    """Set the gradients of `table` and `start` from that of `out`."""
    features, bins, values = table.shape
    below = np.zeros_like(table)
    table[:] = 0
    start[:] = 0
    for first in range(0, len(out), TILE):
        last = min(first + TILE, len(out))
        for n in range(first, last):
            for v in range(values):
                start[v] += out[n, v]
        for f in range(features):
            for n in range(first, last):
                k, t = full[f, n], part[f, n]
                if k == 0 and t == 0:
                    continue
                for v in range(values):
                    below[f, k, v] += out[n, v]
                    table[f, k, v] += t * out[n, v]
                for j in range(k + 1, end[f, n]):
                    t = min((x[f, n] - low[f, j]) * scale[f, j], ONE)
                    for v in range(values):
                        table[f, j, v] += t * out[n, v]
    for f in range(features):
        for k in range(bins - 1, 0, -1):
            for v in range(values):
                table[f, k - 1, v] += below[f, k, v]
                below[f, k - 1, v] += below[f, k, v]


@numba.njit(cache=True)
def _listwise(score: Array, positive: Array, of: Array, lists: int, gradient: Array) -> float:
    """The loss, and its gradient."""
    top, total = np.full(lists, -np.inf, score.dtype), np.zeros(lists, score.dtype)
    count, mean = np.zeros(lists, score.dtype), np.zeros(lists, score.dtype)
    for n in range(len(score)):
        b = of[n]
        top[b] = max(top[b], score[n])
        count[b] += positive[n]
        mean[b] += positive[n] * score[n]
    for n in range(len(score)):
        gradient[n] = np.exp(score[n] - top[of[n]])
        total[of[n]] += gradient[n]
    has, loss = 0, 0.0
    for b in range(lists):
        if count[b]:
            has += 1
            loss += np.log(total[b]) + top[b] - mean[b] / count[b]
    for n in range(len(score)):
        b = of[n]
        if count[b]:
            gradient[n] = (gradient[n] / total[b] - positive[n] / count[b]) / has
        else:
            gradient[n] = 0
    return loss / max(has, 1)


@numba.njit(cache=True, inline="always")
def _sigmoid(x: Any) -> Any:
    return ONE / (ONE + np.exp(-x))


@numba.njit(cache=True, inline="always")
def _softplus(x: Any) -> Any:
    return max(x, np.float32(0)) + np.log1p(np.exp(-abs(x)))


@numba.njit(cache=True)
def _conversion(kind: int, log_p: Any, positive: Any, negative: Any) -> tuple[Any, Any]:
    """Loss of a cart or a purchase, and its slope; see `models.losses`."""
    p = np.exp(log_p)
    if kind == CALIBRATED:
        more = np.log1p(p)
        return positive * (more - log_p) + negative * more, (positive + negative) * p / (ONE + p) - positive
    if kind == WEIGHTED:
        positive, negative = positive * (ONE + p), negative * (ONE - p * p)
    rest = np.exp(min(log_p, np.float32(SURE)))
    loss = -positive * log_p - negative * np.log1p(-rest)
    slope = negative * rest / (ONE - rest) if log_p <= SURE else np.float32(0)
    return loss, slope - positive


@numba.njit(cache=True)
def _entire_space(
    click: Array, logits: Array, positive: Array, negative: Array, share: Array, kind: int, slopes: Array
) -> float:
    """The loss, and its gradients [T, N]."""
    total = 0.0
    for n in range(len(click)):
        yes, no = np.float32(positive[n] & 1), np.float32(negative[n] & 1)
        rest, log_p = ONE - _sigmoid(click[n]), -_softplus(-click[n])
        loss = (yes + no) * _softplus(click[n]) - yes * click[n]
        slope = no - (yes + no) * rest
        for t in range(1, len(logits)):
            yes, no = np.float32(positive[n] >> t & 1), np.float32(negative[n] >> t & 1)
            more, steep = _conversion(kind, log_p - _softplus(-logits[t, n]), yes, no)
            loss += more
            slope += steep * rest
            slopes[t, n] = share[n] * steep * (ONE - _sigmoid(logits[t, n]))
        slopes[0, n] = share[n] * slope
        total += share[n] * loss
    return total


@numba.njit(cache=True)
def _losses(
    score: Array, logits: Array, of: Array, place: Array, clicked: Array, positive: Array, negative: Array,
    share: Array, place_score: Array, place_click: Array, place_share: Array, kind: int,
    lists: int, slopes: Array, of_place_score: Array, of_place_click: Array,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Figures; and gradients by score and logits, [1 + T, N], and by what belongs to places."""
    count = len(score)
    shown, click = np.empty_like(score), np.empty_like(score)
    usual_score, usual_click = (place_share * place_score).sum(), (place_share * place_click).sum()
    level = np.float32(0)
    for n in range(count):
        shown[n], click[n] = score[n], logits[0, n]
        p = min(place[n], PLACES)
        if p > 0:
            shown[n] += np.float32(PLACE) * (place_score[p] - usual_score)
            click[n] += np.float32(PLACE) * (place_click[p] - usual_click)
        level += share[n] * score[n]
    order = _listwise(shown, clicked, of, lists, slopes[0])
    probability = _entire_space(click, logits, positive, negative, share, kind, slopes[1:])
    for n in range(count):
        p = min(place[n], PLACES)
        if p > 0:
            of_place_score[p] += np.float32(PLACE) * slopes[0, n]
            of_place_click[p] += np.float32(PLACE) * slopes[1, n]
        slopes[0, n] += np.float32(2 * LEVEL) * level * share[n]
    of_place_score -= place_share * of_place_score.sum()
    of_place_click -= place_share * of_place_click.sum()
    return order + probability + LEVEL * level * level, order, probability
