"""What training minimises: the order within lists, and the probability of each task."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from models.batch import TASKS
from models.ranker import Outputs, Weights, place_effect
from models.tensors import Batch

SURE = -1e-6
"""Largest log-probability in a product's loss: log(1 - p) stays finite."""

LEVEL = 0.01
"""Weight of the squared mean score: order leaves the level free, and probabilities lean on it."""

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of log p, and of what is taught as a positive and as a negative (0 or 1), to the loss; all [N]."""


def total(w: Weights, out: Outputs, batch: Batch, conversions: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """What is minimised; and of that the loss of the order, and of probabilities."""
    shown = out.score + place_effect(w, "place_score", batch.place)
    order = listwise(shown, batch.clicked, batch.of, len(batch.age))
    probability = (batch.share * entire_space(out, batch.positive, batch.negative, conversions)).sum()
    return order + probability + LEVEL * (batch.share * out.score).sum().square(), order, probability


def listwise(score: Tensor, positive: Tensor, of: Tensor, lists: int) -> Tensor:
    """Softmax cross-entropy within each list that has a positive; mean over those lists.

    L_b = log sum_i exp(s_i) - mean over positives of s_i

    Parameters
    ----------
    score : [N]
    positive : bool [N]
    of : int [N]
        List of each item.
    lists
        How many lists there are.

    Returns
    -------
    Tensor
        A scalar; 0 where no list has a positive.

    Examples
    --------
    >>> clicked = torch.tensor([True, False, False, False])  # none in the second list
    >>> round(float(listwise(torch.zeros(4), clicked, torch.tensor([0, 0, 1, 1]), 2)), 4)
    0.6931
    """
    zeros = score.new_zeros(lists)
    top = zeros.scatter_reduce(0, of, score.detach(), "amax", include_self=False)
    total = torch.log(zeros.index_add(0, of, torch.exp(score - top[of]))) + top
    hits = positive.to(score.dtype)
    count = zeros.index_add(0, of, hits)
    mean = zeros.index_add(0, of, score * hits) / count.clamp(min=1)
    has = (count > 0).to(score.dtype)
    # a list without items has log 0: select instead of multiplying
    return torch.where(count > 0, total - mean, zeros).sum() / has.sum().clamp(min=1)


def entire_space(out: Outputs, positive: Tensor, negative: Tensor, conversions: Loss | None = None) -> Tensor:
    """Loss of each impression, summed over tasks, [N].

    L_i = sum_t l_t(p_t),  p_cart = p_click q_cart, and likewise a purchase

    (ESMM: Ma et al., arXiv 1804.07931.)

    Parameters
    ----------
    positive, negative : int [N]
        Bit t set: the item teaches that task t happened, or that it did not; see `models.batch.Lesson`.
    conversions
        Loss of carts and purchases, one of `DELAYED`; None: log loss, which is that of clicks in any case.
    """
    bits = [
        (taught >> t & 1).to(out.click.dtype) for t in range(len(TASKS)) for taught in (positive, negative)
    ]
    loss = (bits[0] + bits[1]) * softplus(out.click) - bits[0] * out.click
    click = logsigmoid(out.click)
    for k, logit in ((2, out.cart), (4, out.purchase)):
        loss = loss + (conversions or log_loss)(click + logsigmoid(logit), bits[k], bits[k + 1])
    return loss


def log_loss(log_p: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """-[y log p + (1 - y) log(1 - p)]: what is taught is what happened.

    >>> clicked = torch.tensor([1.0, 0.0])
    >>> log_loss(torch.tensor([0.8, 0.8]).log(), clicked, 1 - clicked).numpy().round(4).tolist()
    [0.22310000658035278, 1.6094000339508057]
    """
    return -positive * log_p - negative * _log_rest(log_p)


def fake_negative_weighted(log_p: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Log loss with importance weights, of a stream that teaches each impression as a negative.

    L = -(1 + p) y log p - (1 - p)(1 + p) n log(1 - p),  the weights' p taken as a constant

    n: an impression; y: its positive, taught once more when it comes. Impressions that convert with
    probability c are 1 : c negatives and positives; (1 + p)(p - c) / p is 0 at p = c, however late the
    positives are. (Ktena et al., arXiv 1907.06558.)

    >>> log_p = torch.tensor(0.25, dtype=torch.float64).log()
    >>> one, no = torch.tensor(1), torch.tensor(0)
    >>> float(fake_negative_weighted(log_p, one, no) / log_loss(log_p, one, no))
    1.25
    >>> float(fake_negative_weighted(log_p, no, one) / log_loss(log_p, no, one))
    0.9375
    """
    p = torch.exp(log_p.detach())
    return log_loss(log_p, (1 + p) * positive, (1 - p * p) * negative)


def fake_negative_calibrated(log_p: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Log loss, not weighted, of the share of positives in that stream.

    L = -y log b - n log(1 - b),  b = p / (1 + p)

    Impressions that convert with probability c are 1 : c negatives and positives, a share c / (1 + c) of
    positives: b is fitted to it, and the model's own output is p = b / (1 - b), so that whoever reads it,
    here or in the exported graph, has nothing to invert. (Ktena et al., arXiv 1907.06558.)

    >>> log_p = torch.tensor(0.25, dtype=torch.float64).log()  # b = 0.2
    >>> round(float(fake_negative_calibrated(log_p, torch.tensor(1), torch.tensor(0)).neg().exp()), 6)
    0.2
    """
    one_more = torch.log1p(torch.exp(log_p))
    return positive * (one_more - log_p) + negative * one_more


def _log_rest(log_p: Tensor) -> Tensor:
    """log(1 - p)."""
    return torch.log1p(-torch.exp(log_p.clamp(max=SURE)))


DELAYED: dict[str, Loss] = {
    "naive": log_loss,
    "wait": log_loss,
    "fnw": fake_negative_weighted,
    "fnc": fake_negative_calibrated,
}
"""Loss of carts and purchases by how their delayed labels are treated; see `stream.train.lessons`."""
