"""Figures against sums written out."""

import math

import numpy as np
import pytest

from stream.evaluate.figures import parts
from stream.evaluate.measures import by_place, clicked_lists, hits, judge_lists, probability


def test_auc_counts_pairs():
    rng = np.random.default_rng(0)
    p, y = rng.integers(0, 20, 200) / 20, rng.random(200) < 0.3
    pairs = [(a > b) + (a == b) / 2 for a in p[y] for b in p[~y]]
    assert probability(p, y).auc == pytest.approx(np.mean(pairs))


def test_log_loss_and_its_share_of_the_entropy():
    p, y = np.array([0.2, 0.4, 0.9, 0.5]), np.array([False, False, True, True])
    loss = -(math.log(0.8) + math.log(0.6) + math.log(0.9) + math.log(0.5)) / 4
    figures = probability(p, y)
    assert figures.log_loss == pytest.approx(loss)
    assert figures.normalised_entropy == pytest.approx(loss / math.log(2))
    assert figures.calibration == pytest.approx(1.0)


def test_ece_is_the_gap_in_each_bin():
    # 20 bins of 2: predicted 0.5 each, seen 0 or 1
    p, y = np.full(40, 0.5), np.arange(40) % 2 == 0
    assert probability(p, y).ece == pytest.approx(0.0)
    assert probability(p, np.arange(40) < 20).ece == pytest.approx(0.5)


def test_one_sided_outcomes_have_no_auc():
    figures = probability(np.array([0.1, 0.2]), np.array([False, False]))
    assert (figures.auc, figures.normalised_entropy, figures.calibration) == (None, None, None)


def test_lists_of_one_item_and_lists_without_a_click_do_not_count():
    start, labels = np.array([0, 1, 3, 6]), np.array([1, 0, 0, 0, 1, 0], np.uint8)
    assert clicked_lists(start, labels).tolist() == [2]
    reciprocal, ndcg = judge_lists(start, np.array([1.0, 1, 2, 3, 2, 1]), labels)
    assert reciprocal.tolist() == [0.5]
    assert ndcg.tolist() == pytest.approx([1 / math.log2(3)])


def test_ties_get_their_average_rank():
    reciprocal, _ = judge_lists(np.array([0, 3]), np.zeros(3), np.array([0, 1, 0], np.uint8))
    assert reciprocal.tolist() == [0.5]


def test_equal_values_stay_as_displayed():
    scores = by_place(np.array([0, 2, 5]), np.array([5.0, 5.0, 0.0, 7.0, 7.0]))
    assert np.argsort(-scores[:2]).tolist() == [0, 1]
    assert np.argsort(-scores[2:]).tolist() == [1, 2, 0]


def test_places_beyond_twenty_are_misses():
    assert hits(np.array([20, 21])).hr == 0.5


def test_eighths_are_cut_as_the_batch_yardstick_cuts_them():
    n = 6866
    cut = [n * i // 8 for i in range(9)]
    assert parts(n)["eighths 2-8"].start == cut[1]
    assert parts(n)["second half"].start == cut[4]
