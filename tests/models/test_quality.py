from __future__ import annotations

import numpy as np
import pytest
import torch

from models.batch import Array
from models.losses import listwise
from models.quality import (
    Histogram,
    auc,
    calibration,
    histogram,
    list_losses,
    log_loss,
    normalised_entropy,
    order_losses,
    ranks,
)  # fmt: skip

P = np.array([0.2, 0.7, 0.7, 0.4, 0.9])
Y = np.array([0, 1, 0, 1, 1])


def pairs_auc(bins: Array, y: Array) -> float:
    positive, negative = bins[y == 1][:, None], bins[y == 0][None]
    return float(np.mean((positive > negative) + 0.5 * (positive == negative)))


def test_bin_is_the_floor_of_eight_times_the_log_odds() -> None:
    odds = np.array([-11.0, -10.0, -0.1, 0.0, 0.124, 0.13, 9.99, 14])
    assert histogram(1 / (1 + np.exp(-odds)), odds > 0).bin.tolist() == [-80, -1, 0, 1, 79]


def test_sums_are_over_predictions() -> None:
    h = histogram(P, Y)
    assert h.count.sum() == 5
    assert h.positives.sum() == 3
    assert h.predicted.sum() == pytest.approx(2.9)
    losses = -np.log([0.8, 0.7, 0.3, 0.4, 0.9])
    assert h.loss.sum() == pytest.approx(losses.sum())


def test_certain_and_wrong_is_a_finite_loss() -> None:
    assert log_loss(np.array([0.0, 1.0]), np.array([1, 0])) == pytest.approx([16.118, 16.118], abs=1e-3)


def test_auc_counts_pairs_with_ties_as_half() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(300)
    y = (rng.random(300) < p).astype(int)
    bins = np.floor(8 * (np.log(p) - np.log1p(-p)))
    assert auc(histogram(p, y)) == pytest.approx(pairs_auc(bins, y))


def test_constant_prediction_has_auc_one_half() -> None:
    assert auc(histogram(np.full(4, 0.3), np.array([1, 0, 0, 1]))) == 0.5


@pytest.mark.parametrize("y", [0, 1])
def test_one_sided_outcomes_have_no_auc(y: int) -> None:
    h = histogram(P, np.full(5, y))
    assert np.isnan(auc(h))
    assert np.isnan(normalised_entropy(h))


def test_normalised_entropy_is_relative_to_the_mean() -> None:
    mean = -(3 * np.log(0.6) + 2 * np.log(0.4))
    assert normalised_entropy(histogram(P, Y)) == pytest.approx(log_loss(P, Y).sum() / mean)


def test_calibration_is_predicted_over_seen() -> None:
    assert calibration(histogram(P, Y)) == pytest.approx(2.9 / 3)
    assert np.isnan(calibration(histogram(P, np.zeros(5))))


def test_histograms_add_up() -> None:
    def total(h: Histogram, name: str) -> dict[int, float]:
        return dict(zip(h.bin.tolist(), getattr(h, name).tolist(), strict=True))

    whole, parts = histogram(P, Y), [histogram(P[:2], Y[:2]), histogram(P[2:], Y[2:])]
    for name in ("count", "positives", "predicted", "loss"):
        added: dict[int, float] = {}
        for part in parts:
            for k, v in total(part, name).items():
                added[k] = added.get(k, 0) + v
        assert added == pytest.approx(total(whole, name))


def judged(score: list[float], labels: list[int]) -> tuple[float, float]:
    r = ranks(np.array([0, len(score)]), np.array(score), np.array(labels, np.uint8))
    return float(r.reciprocal[0]), float(r.ndcg[0])


def test_rank_counts_higher_scores_and_half_of_the_equal_ones() -> None:
    assert judged([5, 3, 4, 1], [0, 0, 1, 0]) == pytest.approx((1 / 2, 1 / np.log2(3)))
    assert judged([3, 3, 3], [0, 1, 0]) == pytest.approx((1 / 2, 1 / np.log2(3)))


def test_best_click_gives_the_reciprocal_rank() -> None:
    reciprocal, ndcg = judged([5, 4, 3, 2], [0, 3, 0, 1])
    assert reciprocal == 1 / 2
    assert ndcg == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3)))


def test_all_clicked_is_the_best_order() -> None:
    assert judged([2, 2, 2], [1, 1, 1]) == (1, 1)


def test_click_below_ten_gains_nothing() -> None:
    assert judged(list(range(12, 0, -1)), [0] * 10 + [1, 0])[1] == 0


def test_score_that_is_no_number_comes_last() -> None:
    assert judged([float("nan"), 1.0], [1, 0])[0] == 1 / 2


def test_only_lists_with_a_click_are_judged() -> None:
    start, labels = np.array([0, 2, 2, 4, 5]), np.array([0, 0, 0, 1, 2], np.uint8)
    r = ranks(start, np.array([1.0, 2, 3, 4, 5]), labels)
    assert r.list.tolist() == [2]
    assert r.reciprocal.tolist() == [1]


def test_list_loss_is_the_mean_over_items_of_the_sum_over_tasks() -> None:
    p = np.array([[0.5, 0.1, 0.2], [0.4, 0.3, 0.1], [0.9, 0.5, 0.5]])
    labels = np.array([3, 0, 1], np.uint8)
    start = np.array([0, 2, 2, 3])
    losses = list_losses(start, p, labels, np.full(3, 7, np.uint8))
    first = -np.log([0.5 * 0.1 * 0.8, 0.6 * 0.7 * 0.9]).sum() / 2
    assert losses == pytest.approx([first, 0, -np.log(0.9 * 0.5 * 0.5)])
    some = list_losses(start, p, labels, np.array([0b001, 0b001, 0b101], np.uint8))
    assert some == pytest.approx([-np.log(0.5 * 0.6) / 2, 0, -np.log(0.9 * 0.5)])


@pytest.mark.filterwarnings("error")
def test_order_loss_of_scores_that_are_not_finite_is_not_either() -> None:
    score, labels = np.array([np.nan, 0, 1, 0]), np.array([1, 0, 1, 0], np.uint8)
    losses = order_losses(np.array([0, 2, 4]), score, labels)
    assert np.isfinite(losses).tolist() == [False, True]


def test_order_losses_are_those_that_are_learned_from() -> None:
    random = np.random.default_rng(3)
    start, score = np.array([0, 4, 4, 9, 12]), random.normal(0, 3, 12).astype(np.float32)
    labels = np.array([1, 0, 0, 3, 0, 0, 0, 2, 4, 0, 1, 0], np.uint8)
    of = torch.from_numpy(np.repeat(np.arange(4), np.diff(start)))
    losses = order_losses(start, score, labels)
    assert losses[[1, 2]].tolist() == [0, 0]
    expected = listwise(torch.from_numpy(score), torch.from_numpy(labels & 1) > 0, of, 4)
    assert losses.sum() / 2 == pytest.approx(expected.item(), rel=1e-5)
