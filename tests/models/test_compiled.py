"""What is compiled computes what `models.ranker` and `models.losses` say, and its gradients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from models import compiled, losses, ranker
from models.batch import F
from models.losses import DELAYED
from models.ranker import COUNTED, PLACES, Outputs, Weights, initial
from models.tensors import Batch, Vectors
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
    age = 1000 * torch.rand(lists, SHAPE.history) ** 3
    age[3] = -1  # nothing was touched yet
    age[4:, 5:] = -1
    return Batch(
        x, of, torch.arange(n) % (PLACES + 9), (torch.rand(n) < 0.1) & (of != 4), *teach, torch.rand(n) / N,
        age,
    )  # fmt: skip


def vectors(shown: Batch) -> Vectors:
    item, history = torch.randn(len(shown.x), 8), torch.randn(*shown.age.shape, 8)
    return Vectors(*(v.requires_grad_() for v in (item, torch.randn(len(shown.x)), history)))


def scored(w: Weights, known: Vectors, shown: Batch) -> Outputs:
    """By the ranker."""
    user = ranker.users(w, known.history, shown.age)
    return ranker.forward(w, shown.x, known.item, known.bias, user, shown.of, shown.place)


def assert_close(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    for name, gradient in theirs.items():
        scale = gradient.abs().max().clamp(min=1e-30)
        torch.testing.assert_close(
            mine[name] / scale, gradient / scale, rtol=0, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_predictions_are_the_ranker_s() -> None:
    edges, x = edges_and_values()
    shown = batch(x)
    w, known = weights(edges), vectors(shown)
    mine, theirs = compiled.forward(w, known, shown), scored(w, known, shown)
    torch.testing.assert_close(torch.stack(mine), torch.stack(theirs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("delayed", DELAYED)
def test_figures_and_gradients_are_those_of_the_losses(delayed: str) -> None:
    edges, x = edges_and_values()
    shown, conversions = batch(x), DELAYED[delayed]
    w, known = weights(edges), vectors(shown)
    figures, mine = compiled.total(w, known, shown, conversions)
    expected = losses.total(w, scored(w, known, shown), shown, conversions)
    assert figures == pytest.approx([float(each.detach()) for each in expected], rel=1e-5, abs=1e-5)
    learned = {name: a for name, a in (w | known._asdict()).items() if a.requires_grad}
    theirs = torch.autograd.grad(expected[0], [*learned.values()])
    assert mine.keys() == learned.keys()
    assert_close(mine, dict(zip(learned, theirs, strict=True)))


def test_without_vectors_rows_add_nothing_and_learn_nothing() -> None:
    edges, x = edges_and_values()
    shown = batch(x)
    w, conversions = weights(edges), DELAYED["fnw"]
    figures, mine = compiled.total(w, None, shown, conversions)
    zeros = torch.zeros(len(x))
    expected = losses.total(w, ranker.scores(w, x, zeros, shown.place), shown, conversions)
    assert figures == pytest.approx([float(each.detach()) for each in expected], rel=1e-5, abs=1e-5)
    of_rows = {"dot", "history_decay", "history_place"}
    learned = {name: a for name, a in w.items() if a.requires_grad and name not in of_rows}
    theirs = torch.autograd.grad(expected[0], [*learned.values()])
    assert mine.keys() == learned.keys()
    assert_close(mine, dict(zip(learned, theirs, strict=True)))


def test_nothing_is_learned_of_nothing() -> None:
    w, shown = weights(edges_and_values()[0]), batch(torch.zeros(0, F))
    figures, gradients = compiled.total(w, vectors(shown), shown, DELAYED["fnw"])
    assert list(figures) == [0, 0, 0]
    assert not any(gradient.any() for gradient in gradients.values())
