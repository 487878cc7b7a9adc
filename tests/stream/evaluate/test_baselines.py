"""Counting baselines, and the linear model."""

from collections import Counter

import numpy as np
import pytest

from models.batch import F
from stream.evaluate.baselines import Top
from stream.evaluate.linear import Linear, logistic_regression


def test_top_is_what_sorting_all_counts_gives():
    rng = np.random.default_rng(1)
    top, counts = Top(10), Counter()
    for item in rng.zipf(1.3, 3000).tolist():
        top.count(item)
        counts[item] += 1
    assert [counts[x] for x in top.items] == [n for _, n in counts.most_common(10)]
    assert len(set(top.items)) == 10


def test_the_linear_model_learns_which_feature_counts():
    rng = np.random.default_rng(0)
    linear = Linear(logistic_regression(), rng)
    for _ in range(300):
        x = rng.standard_normal((10, F)).astype(np.float32)
        linear.learn(x, np.arange(10) == x[:, 3].argmax())
    lists = rng.standard_normal((100, 10, F)).astype(np.float32)
    hit = [linear.predict(x).argmax() == x[:, 3].argmax() for x in lists]
    assert np.mean(hit) > 0.5


def test_probabilities_are_scaled_back_to_the_rate_of_clicks():
    rng = np.random.default_rng(0)
    linear = Linear(logistic_regression(), rng)
    said, clicked = 0.0, 0
    for k in range(600):
        x = rng.standard_normal((20, F)).astype(np.float32)
        if k >= 300:
            said, clicked = said + linear.predict(x).sum(), clicked + 1
        linear.learn(x, np.arange(20) == 7)
    assert said / clicked == pytest.approx(1.0, abs=0.25)
