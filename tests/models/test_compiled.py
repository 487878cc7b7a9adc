"""What is compiled computes what `models.ranker` and `models.losses` say, and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from models import compiled, losses, ranker
from models.batch import F
from models.losses import DELAYED
from models.ranker import COUNTED, PLACES, initial
from models.tensors import Batch
from tests.models.toy import SHAPE

N = 150
"""More items than `compiled.TILE`, and not a multiple of it."""


def weights(edges: Tensor) -> dict[str, Tensor]:
    rng = np.random.default_rng(0)
    random = {
        name: torch.from_numpy(array + 0.3 * rng.standard_normal(array.shape).astype(np.float32))
        for name, array in initial(SHAPE, rng).items()
    }
    share = torch.rand(PLACES + 1)
    random |= {"edges": edges, "place_share": share / share.sum()}
    return {name: w.requires_grad_(name not in COUNTED) for name, w in random.items()}


def edges_and_values() -> tuple[Tensor, Tensor]:
    """Bins, some of them empty or narrow; values in them, at edges, beyond, and no numbers."""
    rng = torch.Generator().manual_seed(0)
    edges = torch.sort(torch.randn(F, SHAPE.bins + 1, generator=rng), 1).values
    edges[1, 5:] = edges[1, 5]
    edges[2, :4] = edges[2, 4]
    edges[3] = 0.7
    edges[4] = 0
    edges[5, 3:9] = edges[5, 3] + 3e-7 * torch.arange(6)
    x = torch.randn(N, F, generator=rng)
    for n in range(40):
        x[n] = edges[:, n % (SHAPE.bins + 1)]
    x[40:60] = x[:20] + 2e-7
    x[60:70] = edges[:, 5] + 1e-6 * torch.rand(10, F, generator=rng)
    x[70:73] = torch.tensor([float("nan"), float("inf"), -float("inf")]).unsqueeze(1)
    x[73:75] = torch.tensor([1e30, -1e30]).unsqueeze(1)
    return edges, x


def batch(x: Tensor, lists: int = 14) -> Batch:
    """Items in some places of lists; one list has no click, the last two have no items."""
    n = len(x)
    of = torch.sort(torch.randint(0, lists - 2, (n,))).values
    teach = [torch.randint(0, 8, (n,), dtype=torch.uint8) for _ in range(2)]
    return Batch(
        x, of, torch.arange(n) % (PLACES + 9), (torch.rand(n) < 0.1) & (of != 4), *teach, torch.rand(n) / N,
        torch.zeros(lists, SHAPE.history),
    )  # fmt: skip


def test_scores_are_the_ranker_s() -> None:
    edges, x = edges_and_values()
    w, rows, place = weights(edges), torch.randn(N), batch(x).place
    mine, theirs = (scores(w, x, rows, place) for scores in (compiled.scores, ranker.scores))
    torch.testing.assert_close(torch.stack(mine), torch.stack(theirs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("delayed", DELAYED)
def test_figures_and_gradients_are_those_of_the_losses(delayed: str) -> None:
    edges, x = edges_and_values()
    w, rows, shown = weights(edges), torch.randn(N, requires_grad=True), batch(x)
    known, conversions = {**w, "rows": rows}, DELAYED[delayed]
    figures, mine = compiled.total(w, rows, shown, conversions)
    expected = losses.total(w, ranker.scores(w, x, rows, shown.place), shown, conversions)
    torch.testing.assert_close(torch.stack(figures), torch.stack(expected), rtol=1e-5, atol=1e-5)
    theirs = torch.autograd.grad(expected[0], [known[name] for name in mine])
    for (name, a), b in zip(mine.items(), theirs, strict=True):
        scale = b.abs().max()
        torch.testing.assert_close(a / scale, b / scale, rtol=0, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    learned = {name for name, array in w.items() if array.requires_grad}
    assert mine.keys() == {"rows"} | learned - {"dot", "history_decay", "history_place"}  # these are in rows


def test_nothing_is_learned_of_nothing() -> None:
    w = weights(edges_and_values()[0])
    figures, gradients = compiled.total(w, torch.zeros(0), batch(torch.zeros(0, F)), DELAYED["fnw"])
    assert torch.stack(figures).tolist() == [0, 0, 0]
    assert not any(gradient.any() for gradient in gradients.values())
