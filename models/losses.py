"""What training minimises: the order within lists, and the probability of each task."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from models.ranker import Outputs

SURE = -1e-6
"""Largest log-probability in a product's loss: log(1 - p) stays finite."""


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


def entire_space(out: Outputs, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Log loss of every task over all impressions, summed over tasks, mean over items.

    L = sum_t mean_i -[y log p + (1 - y) log(1 - p)],  p_cart = p_click q_cart, and likewise a purchase

    (ESMM: Ma et al., arXiv 1804.07931.)

    Parameters
    ----------
    labels : int [N]
        Bit t set: task t happened.
    weight : float [N]
        Of each item in the mean over N; None: all alike.
    """
    clicked = (labels & 1).to(out.click.dtype)
    loss = softplus(out.click) - clicked * out.click
    click = logsigmoid(out.click)
    for bit, logit in ((2, out.cart), (4, out.purchase)):
        happened = (labels & bit) > 0
        log_p = click + logsigmoid(logit)
        loss = loss - torch.where(happened, log_p, torch.log1p(-torch.exp(log_p.clamp(max=SURE))))
    loss = loss if weight is None else weight * loss
    return loss.mean() if len(loss) else loss.sum()
