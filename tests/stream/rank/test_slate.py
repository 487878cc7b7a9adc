from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.batch import Array, Shape
from stream.ids import hash_id
from stream.messages import Cart, Click, Item
from stream.rank.candidates import CART, NEAR, RECENT, TRENDING
from stream.rank.models import Slot
from stream.rank.slate import USERS, Offers, best_popular, best_scored, gather_offers, offers
from tests.stream.rank.stage import SMALL, Stage, T


class Fake:
    """A model whose score is what the test says for each candidate."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.given = scores, ()

    def score(self, *given: Array) -> tuple[Array, Array]:
        self.given = given
        score = np.array(self.scores, np.float32)
        return score, np.repeat(score[:, None], 3, 1)


def _slot(*scores: float) -> Slot:
    slot = Slot(Shape())
    slot.served = Fake(*scores)  # type: ignore[assignment]
    return slot


def _offers(*sizes: int, source: int = NEAR) -> Offers:
    """Candidates 1, 2, 3, ... for visitors with so many each."""
    out = offers(16, 4)
    out.start[: len(sizes) + 1] = np.concatenate([[0], np.cumsum(sizes)])
    out.item[: sum(sizes)] = np.arange(1, sum(sizes) + 1)
    out.source[: sum(sizes)] = source
    return out


def test_the_best_of_each_visitor_by_score() -> None:
    best = best_scored(_offers(3, 0, 2), 3, _slot(0.1, 0.5, 0.3, 2, 3), 2)
    assert [b.item.tolist() for b in best] == [[2, 3], [], [5, 4]]
    assert best[0].score.tolist() == pytest.approx([0.5, 0.3])
    assert best[2].p[:, 0].tolist() == [3, 2]


def test_equal_scores_keep_the_order_of_their_sources() -> None:
    (best,) = best_scored(_offers(4), 1, _slot(1, 1, 2, 1), 4)
    assert best.item.tolist() == [3, 1, 2, 4]


def test_without_a_model_or_candidates_it_is_what_is_popular() -> None:
    best = best_scored(_offers(2), 1, Slot(Shape()), 3)
    assert [(b.item.tolist(), b.score.tolist()) for b in best] == [([1, 2], [1, 0.5])]
    assert [b.item.tolist() for b in best_scored(_offers(0), 1, _slot(), 3)] == [[]]


@pytest.mark.parametrize("own", [CART, RECENT])
def test_popularity_leaves_out_what_is_the_visitors_own(own: int) -> None:
    out = _offers(4, source=TRENDING)
    out.source[[0, 2]] = own
    (best,) = best_popular(out, 1, 9)
    assert best.item.tolist() == [2, 4]


def _gather(stage: Stage, users: list[str], personal: bool = True) -> Offers:
    out = offers(SMALL.slate.candidates, SMALL.features.history)
    rank, slot = stage.rank, stage.rank.slots["fresh"]
    gather_offers(
        out, np.array([stage.visitor(u) for u in users]), np.full(len(users), T + 5000),
        SMALL.slate.candidates, personal, slot.trending, rank.catalogue.newest(9), slot.alike,
        stage.share.visitors.memory, slot.known, rank.catalogue.known(), rank.limits, rank.scratch,
    )  # fmt: skip
    return out


def test_candidates_of_several_visitors_follow_each_other(stage: Stage) -> None:
    stage.items(*(Item(item_id=x, category="c") for x in "abc"))
    stage.feed(Cart(user_id="u", ts=T, item_id="b"), Click(user_id="v", ts=T, item_id="?"))
    out = _gather(stage, ["v", "u"])
    assert out.start[:3].tolist() == [0, 3, 6]
    assert out.item[:6].tolist() == [hash_id(x) for x in "abcbac"]
    assert out.user[:6].tolist() == [0, 0, 0, 1, 1, 1]
    assert (out.features[:6, 0] == 0).all()
    assert out.category[:6].tolist() == [int(stage.rank.catalogue.items["category"][0])] * 6
    assert out.age[:2].tolist() == [[5, -1, -1, -1]] * 2
    cold = stage.rank.shape.cold
    assert out.row[:6].tolist() == [hash_id(x) % cold for x in "abcbac"]
    assert out.history_row[:2, 0].tolist() == [hash_id("?") % cold, hash_id("b") % cold]


def test_buffers_hold_the_most_that_a_call_can_bring(stage: Stage) -> None:
    stage.items(*(Item(item_id=f"i{k}") for k in range(50)))
    stage.feed(*(Click(user_id=f"u{k}", ts=T, item_id="i1") for k in range(USERS)))
    out: Any = _gather(stage, [f"u{k}" for k in range(USERS)])
    assert out.start[USERS] <= len(out.item)
    assert np.diff(out.start).min() > 0
