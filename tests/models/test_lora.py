from __future__ import annotations

import numpy as np

from models.batch import Array
from models.lora import FACTORS, LARGE, RANK, added, factors, merged


def dense() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((6, 9)).astype(np.float32) for name in (*LARGE, "deep3")}


def test_additions_begin_at_nothing() -> None:
    start = dense()
    both = start | factors(start, np.random.default_rng(1))
    assert both.keys() >= FACTORS
    for name, array in added(both).items():
        np.testing.assert_array_equal(array, start[name])


def test_what_is_added_has_the_rank_of_its_factors() -> None:
    start = dense()
    both = start | factors(start, np.random.default_rng(1))
    both["deep1_b"] = np.random.default_rng(2).standard_normal((6, RANK)).astype(np.float32)
    difference = added(both)["deep1"] - start["deep1"]
    assert np.linalg.matrix_rank(difference, tol=1e-4) == RANK
    np.testing.assert_array_equal(added(both)["deep2"], start["deep2"])


def test_merged_weights_are_what_they_were_with_additions() -> None:
    start = dense()
    both = start | factors(start, np.random.default_rng(1))
    both["deep2_b"] += 1
    state = {f"{vector}.{name}": array for vector in ("flat", "mean") for name, array in both.items()}
    after = merged(state | {"first.deep1": start["deep1"], "steps": np.array([3])})
    for name in start:
        np.testing.assert_array_equal(after[f"flat.{name}"], added(both)[name])
        np.testing.assert_array_equal(after[f"mean.{name}"], added(both)[name])
    assert after["steps"][0] == 3
    np.testing.assert_array_equal(after["first.deep1"], start["deep1"])
