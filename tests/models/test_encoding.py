from __future__ import annotations

import numpy as np

from models.batch import Array, F
from models.encoding import Quantiles, rebin


def column(values: Array) -> Array:
    x = np.zeros((len(values), F), np.float32)
    x[:, 0] = values
    return x


def quantiles(bins: int = 4, **options: int) -> Quantiles:
    return Quantiles(bins, np.random.default_rng(0), **options)


def encoded(weight: Array, edges: Array, x: Array) -> Array:
    low, high = edges[:-1], edges[1:]
    return np.clip((x[:, None] - low) / np.maximum(high - low, 1e-6), 0, 1) @ weight


def test_edges_are_quantiles_of_the_stream() -> None:
    q, rng = quantiles(), np.random.default_rng(1)
    for _ in range(100):
        q.add(column(rng.random(1000)))
    np.testing.assert_allclose(q.edges()[0], [0, 0.25, 0.5, 0.75, 1], atol=0.03)


def test_frequent_value_takes_one_bin_only() -> None:
    values = np.concatenate([np.full(9000, -1.0), np.random.default_rng(1).random(1000)])
    q = quantiles()
    q.add(column(values))
    assert (np.diff(q.edges()[0]) > 0.1).all()


def test_constant_feature_gives_equal_edges() -> None:
    q = quantiles()
    q.add(column(np.zeros(10)))
    assert q.edges().tolist() == np.zeros((F, 5)).tolist()


def test_sample_follows_a_drifting_stream() -> None:
    q = quantiles(size=100, memory=1000)
    q.add(column(np.zeros(5000)))
    q.add(column(np.ones(5000)))
    assert q.sample[:, 0].mean() > 0.95


def test_bins_are_due_at_doublings() -> None:
    q = quantiles()
    due = [k for k in range(1, 100) if q.add(column(np.zeros(1)))]
    assert due == [1, 2, 4, 8, 16, 32, 64]


def test_values_that_are_no_numbers_leave_finite_edges() -> None:
    q = quantiles()
    q.add(column(np.array([np.nan, np.inf, -np.inf, 1.0])))
    assert np.isfinite(q.edges()).all()


def test_state_continues_with_the_same_draws() -> None:
    rng = np.random.default_rng(1)
    one, other = quantiles(size=50), Quantiles(4, np.random.default_rng(9), size=50)
    one.add(column(rng.random(500)))
    other.load_state(one.state())
    more = column(rng.random(500))
    assert one.add(more) == other.add(more)
    np.testing.assert_array_equal(one.sample, other.sample)


def test_function_stays_when_edges_are_added() -> None:
    rng = np.random.default_rng(0)
    before = np.tile(np.array([0, 1, 2, 4, 4], np.float32), (F, 1))
    after = np.tile(np.array([0, 0.5, 1, 2, 4], np.float32), (F, 1))
    weight = rng.standard_normal((F, 3, 4)).astype(np.float32)
    weight[:, :, 3] = 0
    moved, offset = rebin(weight, before, after)
    x = np.linspace(-1, 5, 50)
    for v in range(3):
        old, new = encoded(weight[0, v], before[0], x), encoded(moved[0, v], after[0], x) + offset[0, v]
        np.testing.assert_allclose(new, old, atol=1e-5)


def test_narrower_edges_keep_the_value_where_they_start() -> None:
    before, after = (np.tile(np.array(e, np.float32), (F, 1)) for e in ([0, 2, 4], [1, 2, 3]))
    weight = np.ones((F, 1, 2), np.float32)
    moved, offset = rebin(weight, before, after)
    assert offset[0, 0] == 0.5
    assert moved[0, 0].tolist() == [0.5, 0.5]


def test_first_edges_leave_the_weights_as_they_are() -> None:
    weight = np.random.default_rng(0).standard_normal((F, 2, 2)).astype(np.float32)
    moved, offset = rebin(weight, np.zeros((F, 3), np.float32), np.ones((F, 3), np.float32))
    np.testing.assert_array_equal(moved, weight)
    assert not offset.any()
