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
from torch.nn.functional import softplus

from models.batch import TASKS, Array
from models.losses import LEVEL, SURE, Loss, fake_negative_calibrated, fake_negative_weighted, log_loss
from models.ranker import (
    HEAD,
    LIST_RECENCY,
    MAX_PLACE,
    PLACE,
    PLACES,
    PRIOR_RANK,
    RULE_PLACE,
    RULE_TOUCHED,
    SHRINK,
    WIDE,
    WIDE_CLICK,
    Outputs,
    Weights,
    place_effect,
)
from models.tensors import Batch, Vectors

NARROW = np.float32(1e-6)
"""Narrower bins are as wide as this, as for `models.ranker.fill`."""

TILE = 64
"""Items whose sums are near at hand while features pass."""

LARGEST = np.finfo(np.float32).max
"""What is infinite counts as this, as for `torch.nan_to_num`."""

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


class _Rows(NamedTuple):
    """What `_of_rows` computes and `_of_rows_back` needs: users [B, D], weights of histories [B, H]."""

    user: Array
    weight: Array


class _Layers(NamedTuple):
    """What `_forward` computes, and `_backward` needs.

    Attributes
    ----------
    at : Array, ...
        Arguments of `_place`.
    first, two, score : [N, hidden + 2], [N, hidden / 2], [N]
        The first with two wide columns.
    logits : [T, N]
        Without what belongs to a place.
    heads : [T, hidden / 2 + 2]
    """

    at: tuple[Array, ...]
    first: Array
    two: Array
    score: Array
    logits: Array
    heads: Array


@torch.no_grad()
def forward(w: Weights, vectors: Vectors, batch: Batch) -> Outputs:
    """`models.ranker.forward`, without gradients."""
    layers = _forward(w, batch.x.numpy(), _of_rows(w, vectors, batch)[0])
    score, (click, cart, purchase) = torch.from_numpy(layers.score), torch.from_numpy(layers.logits)
    click += place_effect(w, "place_click", batch.place)
    return Outputs(score, click, cart, purchase)


@torch.no_grad()
def total(
    w: Weights, vectors: Vectors | None, batch: Batch, conversions: Loss
) -> tuple[tuple[float, ...], dict[str, Tensor]]:
    """`models.losses.total`, and the gradients of its first: of weights by name, and of `vectors`.

    Without vectors, nothing is known of any item.
    """
    n = len(batch.x)
    rows, of_rows = (np.zeros(n, np.float32), None) if vectors is None else _of_rows(w, vectors, batch)
    layers = _forward(w, batch.x.numpy(), rows)
    found = {name: torch.zeros(PLACES + 1) for name in ("place_score", "place_click")}
    slopes = np.empty((1 + len(TASKS), n), np.float32)
    figures = _losses(
        layers.score, layers.logits, batch.of.numpy(), batch.place.numpy(), batch.clicked.numpy(),
        batch.positive.numpy(), batch.negative.numpy(), batch.share.numpy(),
        w["place_score"].numpy(), w["place_click"].numpy(), w["place_share"].numpy(),
        KINDS[conversions], len(batch.age),
        slopes, found["place_score"].numpy(), found["place_click"].numpy(),
    )  # fmt: skip
    found |= _backward(w, layers, slopes)
    if vectors is not None and of_rows is not None:
        found |= _of_rows_back(w, vectors, batch, of_rows, slopes[0])
    return figures, found


def _of_rows(w: Weights, vectors: Vectors, batch: Batch) -> tuple[Array, _Rows]:
    """`models.ranker.of_rows` of `models.ranker.users`."""
    rows = np.empty(len(batch.x), np.float32)
    user = np.empty((len(batch.age), vectors.item.shape[-1]), np.float32)
    weight = np.empty(batch.age.shape, np.float32)
    _users(
        vectors.history.numpy(), batch.age.numpy(), w["history_place"].numpy(),
        softplus(w["history_decay"]).item(), user, weight,
    )  # fmt: skip
    _match(vectors.item.numpy(), vectors.bias.numpy(), user, batch.of.numpy(), w["dot"].item(), rows)
    return rows, _Rows(user, weight)


def _of_rows_back(
    w: Weights, vectors: Vectors, batch: Batch, rows: _Rows, slopes: Array
) -> dict[str, Tensor]:
    """Gradients of weights and vectors, from that of what the rows add to the score, [N]."""
    found = {
        "item": torch.empty_like(vectors.item),
        "bias": torch.from_numpy(slopes),
        "history": torch.empty_like(vectors.history),
        "history_place": torch.zeros_like(w["history_place"]),
    }
    of_user = np.zeros_like(rows.user)
    dot = _match_back(
        vectors.item.numpy(), rows.user, batch.of.numpy(), w["dot"].item(), slopes,
        found["item"].numpy(), of_user,
    )  # fmt: skip
    decay = _users_back(
        vectors.history.numpy(), batch.age.numpy(), *rows, of_user,
        found["history"].numpy(), found["history_place"].numpy(),
    )  # fmt: skip
    return found | {"dot": torch.tensor([dot]), "history_decay": decay * torch.sigmoid(w["history_decay"])}


def _forward(w: Weights, x: Array, rows: Array) -> _Layers:
    features, _, bins = w["encode"].shape
    n, (half, hidden) = len(x), w["deep2"].shape
    table = np.empty((features, bins, hidden + 2), np.float32)
    _worth(w["encode"].numpy(), w["deep1"].numpy(), w["wide"].numpy(), table)
    by_bin, by_item = (features, bins), (features, n)
    at = (
        np.empty(by_item, np.float32), np.empty(by_bin, np.float32), np.empty(by_bin, np.float32),
        np.empty(by_item, np.uint8), np.empty(by_item, np.uint8), np.empty(by_item, np.float32),
    )  # fmt: skip
    _place(w["edges"].numpy(), x, *at)  # type: ignore[call-arg]
    first, two = np.empty((n, hidden + 2), np.float32), np.empty((n, half), np.float32)
    score, logits = np.empty(n, np.float32), np.empty((len(TASKS), n), np.float32)
    _add(*at, table, torch.cat([w["deep1_bias"], w["wide_bias"]]).numpy(), first)  # type: ignore[call-arg]
    heads = np.stack([w[name].numpy() for name in HEADS])
    heads[:, -1] += w["lately"].numpy()
    _dense(
        first, rows, at[0], w["deep2"].numpy(), w["deep2_bias"].numpy(), w["deep3"].numpy(), heads,
        two, score, logits,
    )  # fmt: skip
    return _Layers(at, first, two, score, logits, heads)


def _backward(w: Weights, layers: _Layers, slopes: Array) -> dict[str, Tensor]:
    """Gradients of weights, from those of the score and of logits, [1 + T, N]."""
    at, first, two, score, _, heads = layers
    hidden = first.shape[1] - len(w["wide"])
    found = {name: torch.zeros_like(w[name]) for name in ("deep2", "deep2_bias", "deep3")}
    found |= {name: torch.empty_like(w[name]) for name in ("encode", "deep1", "wide")}
    of_heads, of_first = np.zeros_like(heads), np.empty_like(first)
    _dense_back(
        first, two, score, slopes, w["deep2"].numpy(), w["deep3"].numpy(), heads,
        found["deep2"].numpy(), found["deep2_bias"].numpy(), found["deep3"].numpy(), of_heads, of_first,
    )  # fmt: skip
    of_table = np.empty((*w["encode"].shape[::2], first.shape[1]), np.float32)
    start = torch.empty(first.shape[1])
    _add_back(*at, of_table, start.numpy(), of_first)  # type: ignore[call-arg]
    _worth_back(
        w["encode"].numpy(), w["deep1"].numpy(), of_table,
        found["encode"].numpy(), found["deep1"].numpy(), found["wide"].numpy(),
    )  # fmt: skip
    return found | {
        "wide_bias": start[hidden:],
        "deep1_bias": start[:hidden],
        **dict(zip(HEADS, map(torch.from_numpy, of_heads), strict=True)),
    }


@numba.njit(cache=True)
def _users(history: Array, age: Array, place: Array, decay: float, user: Array, weight: Array) -> None:
    """Decayed means `user` [B, D], and what each of the `history` [B, H, D] weighs in them, [B, H]."""
    for b in range(len(age)):
        user[b], mass = 0, np.float32(SHRINK)
        for h in range(age.shape[1]):
            weight[b, h] = 0
            if age[b, h] >= 0:
                weight[b, h] = np.exp(place[h] - np.float32(decay) * np.log1p(age[b, h]))
                mass += weight[b, h]
                for d in range(user.shape[1]):
                    user[b, d] += weight[b, h] * history[b, h, d]
        user[b] /= mass
        weight[b] /= mass


@numba.njit(cache=True)
def _users_back(
    history: Array, age: Array, user: Array, weight: Array, of_user: Array, of_history: Array, of_place: Array
) -> float:
    """Set the gradient of `history`, and of places; returns that of the decay."""
    of_decay = 0.0
    for b in range(len(age)):
        for h in range(age.shape[1]):
            along = np.float32(0)
            for d in range(user.shape[1]):
                along += (history[b, h, d] - user[b, d]) * of_user[b, d]
                of_history[b, h, d] = weight[b, h] * of_user[b, d]
            if weight[b, h] > 0:
                of_place[h] += weight[b, h] * along
                of_decay -= weight[b, h] * along * np.log1p(age[b, h])
    return of_decay


@numba.njit(cache=True)
def _match(item: Array, bias: Array, user: Array, of: Array, dot: float, rows: Array) -> None:
    """Set `rows` [N] to what items [N, D] have in common with their users, and their bias."""
    for n in range(len(item)):
        product = np.float32(0)
        for d in range(item.shape[1]):
            product += user[of[n], d] * item[n, d]
        rows[n] = np.float32(dot) * product + bias[n]


@numba.njit(cache=True)
def _match_back(
    item: Array, user: Array, of: Array, dot: float, slopes: Array, of_item: Array, of_user: Array
) -> float:
    """Set the gradient of `item`, add to that of `user`; returns that of `dot`."""
    of_dot = 0.0
    for n in range(len(item)):
        product = np.float32(0)
        for d in range(item.shape[1]):
            product += user[of[n], d] * item[n, d]
            of_item[n, d] = np.float32(dot) * slopes[n] * user[of[n], d]
            of_user[of[n], d] += np.float32(dot) * slopes[n] * item[n, d]
        of_dot += slopes[n] * product
    return of_dot


@numba.njit(cache=True, fastmath=FAST)
def _worth(encode: Array, deep1: Array, wide: Array, table: Array) -> None:
    """Set `table` [F, bins, hidden + 2], what a full bin is worth to the first layer and the wide columns.

    Nothing comes between `encode` and that layer: their product is taken once, not for each item.
    """
    features, width, bins = encode.shape
    hidden = len(deep1)
    for f in range(features):
        into = deep1[:, f * width : (f + 1) * width].T.copy()
        for k in range(bins):
            table[f, k] = 0
            for v in range(width):
                for h in range(hidden):
                    table[f, k, h] += encode[f, v, k] * into[v, h]
            for v in range(len(wide)):
                table[f, k, hidden + v] = wide[v, f, k]


@numba.njit(cache=True, fastmath=FAST | {"reassoc"})
def _worth_back(
    encode: Array, deep1: Array, of_table: Array, of_encode: Array, of_deep1: Array, of_wide: Array
) -> None:
    """Set the gradients of weights from that of `table`."""
    features, width, bins = encode.shape
    hidden = len(deep1)
    for f in range(features):
        into = deep1[:, f * width : (f + 1) * width].T.copy()
        of_into = np.zeros_like(into)
        for k in range(bins):
            for v in range(width):
                along = np.float32(0)
                for h in range(hidden):
                    along += into[v, h] * of_table[f, k, h]
                    of_into[v, h] += encode[f, v, k] * of_table[f, k, h]
                of_encode[f, v, k] = along
            for v in range(len(of_wide)):
                of_wide[v, f, k] = of_table[f, k, hidden + v]
        of_deep1[:, f * width : (f + 1) * width] = of_into.T


@numba.njit(cache=True, fastmath=FAST)
def _dense(
    first: Array, rows: Array, x: Array, deep2: Array, deep2_bias: Array, deep3: Array, heads: Array,
    two: Array, score: Array, logits: Array,
) -> None:  # fmt: skip
    """The layers after the first, of which what is negative becomes zero."""
    half, hidden = deep2.shape
    columns, zero = deep2.T.copy(), np.float32(0)
    for n in range(len(first)):
        for j in range(half):
            two[n, j] = deep2_bias[j]
        for h in range(hidden):
            first[n, h] = max(first[n, h], zero)
            for j in range(half):
                two[n, j] += first[n, h] * columns[h, j]
        touched, place = x[LIST_RECENCY, n], x[PRIOR_RANK, n]
        known = np.float32(RULE_TOUCHED) * min(max(touched, zero), ONE)  # as `models.ranker.rule`
        known -= np.float32(RULE_PLACE) * np.log(min(max(place, ONE), np.float32(MAX_PLACE)))
        score[n] = rows[n] + known + np.float32(WIDE) * first[n, hidden]
        for j in range(half):
            two[n, j] = max(two[n, j], zero)
            score[n] += two[n, j] * deep3[j]
        for t in range(len(heads)):
            logits[t, n] = heads[t, half] * score[n] + heads[t, half + 1]
            for j in range(half):
                logits[t, n] += np.float32(HEAD) * heads[t, j] * two[n, j]
        logits[0, n] += np.float32(WIDE_CLICK) * first[n, hidden + 1]


@numba.njit(cache=True, fastmath=FAST)
def _dense_back(
    first: Array, two: Array, score: Array, slopes: Array, deep2: Array, deep3: Array, heads: Array,
    of_deep2: Array, of_bias: Array, of_deep3: Array, of_heads: Array, of_first: Array,
) -> None:  # fmt: skip
    """Add to the gradients of weights, and set that of `first`."""
    half, hidden = deep2.shape
    for n in range(len(first)):
        for t in range(len(heads)):
            slope = slopes[1 + t, n]
            for j in range(half):
                of_heads[t, j] += np.float32(HEAD) * slope * two[n, j]
            of_heads[t, half] += slope * score[n]
            of_heads[t, half + 1] += slope
        for h in range(hidden):
            of_first[n, h] = 0
        for j in range(half):
            of_deep3[j] += slopes[0, n] * two[n, j]
            if two[n, j] > 0:
                # probabilities do not move the score, nor a click's what is below it
                back = slopes[0, n] * deep3[j]
                for t in range(1, len(heads)):
                    back += np.float32(HEAD) * heads[t, j] * slopes[1 + t, n]
                of_bias[j] += back
                for h in range(hidden):
                    of_first[n, h] += back * deep2[j, h]
                for h in range(hidden):
                    of_deep2[j, h] += back * first[n, h]
        for h in range(hidden):
            of_first[n, h] *= first[n, h] > 0
        of_first[n, hidden] = np.float32(WIDE) * slopes[0, n]
        of_first[n, hidden + 1] = np.float32(WIDE_CLICK) * slopes[1, n]


@numba.njit(cache=True, fastmath=FAST)
def _place(
    edges: Array, given: Array, x: Array, low: Array, scale: Array, full: Array, end: Array, part: Array
) -> None:
    """Where values x [F, N], which are those `given` [N, F], are among bins with `edges` [F, bins + 1].

    `full` ones, then up to `end` those in part, `part` of the first of these. Where all are full the last one
    counts as in part, wholly. Only of bins that are too narrow may more than one be in part.
    """
    features, bins = low.shape
    for n in range(len(given)):
        for f in range(features):
            number = min(max(given[n, f], -LARGEST), LARGEST)
            x[f, n] = np.float32(0) if np.isnan(given[n, f]) else number
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
