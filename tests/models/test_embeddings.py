from __future__ import annotations

import numpy as np
import torch

from models.embeddings import DOUBT, MEMORY, Rows

CPU = torch.device("cpu")


def rows() -> Rows:
    return Rows({"embedding": np.zeros((6, 2), np.float32), "bias": np.zeros(6, np.float32)}, CPU)


def gradients(*g: float) -> dict[str, torch.Tensor]:
    return {"embedding": torch.tensor([[v, 2 * v] for v in g]), "bias": torch.tensor(g)}


def test_step_is_rowwise_adagrad() -> None:
    r = rows()
    for _ in range(2):
        r.step(np.array([4]), gradients(3.0), 0.1)
    first = 0.1 * 3 / np.sqrt(9 + DOUBT)
    second = 0.1 * 3 / np.sqrt(9 * (1 - 1 / MEMORY) + 9 + DOUBT)
    np.testing.assert_allclose(r.arrays()["bias"][4], -first - second, rtol=1e-6)
    one = 0.1 * np.array([3, 6]) / np.sqrt(45 + DOUBT)
    two = 0.1 * np.array([3, 6]) / np.sqrt(45 * (1 - 1 / MEMORY) + 45 + DOUBT)
    np.testing.assert_allclose(r.arrays()["embedding"][4], -one - two, rtol=1e-6)


def test_row_without_gradient_is_not_touched() -> None:
    r = rows()
    r.step(np.array([1, 2]), gradients(0.0, 1.0), 0.1)
    assert np.flatnonzero(r.dirty.flags).tolist() == [2]
    assert not r.arrays()["embedding"][1].any()


def test_arrays_share_the_memory_that_is_trained() -> None:
    r = rows()
    seen = r.arrays()["bias"]
    r.step(np.array([3]), gradients(1.0), 0.1)
    assert seen[3] != 0


def test_a_row_that_occurs_several_times_learns_the_sum_once() -> None:
    one, other = rows(), rows()
    for _ in range(2):  # also when the rows before were others
        one.step(np.array([5, 3, 5, 0]), gradients(1.0, 2.0, 3.0, 0.0), 0.1)
        other.step(np.array([3, 5]), gradients(2.0, 4.0), 0.1)
    for name, array in one.state().items():
        np.testing.assert_array_equal(array, other.state()[name])


def test_gradients_may_be_those_of_the_first_rows_only() -> None:
    one, other = rows(), rows()
    first = {"embedding": gradients(1.0, 2.0)["embedding"], "bias": torch.tensor([5.0])}
    one.step(np.array([4, 2]), first, 0.1)
    other.step(np.array([4, 2]), first | {"bias": torch.tensor([5.0, 0.0])}, 0.1)
    np.testing.assert_array_equal(one.arrays()["bias"], other.arrays()["bias"])
    assert one.arrays()["bias"][4] != 0


def test_copied_row_starts_with_a_new_optimiser() -> None:
    r = rows()
    r.step(np.array([1, 4]), gradients(1.0, 5.0), 0.1)
    r.copy(np.array([1]), np.array([4]))
    state = r.state()
    assert state["embedding"][4].tolist() == state["embedding"][1].tolist()
    assert state["square.embedding"][4] == 0


def test_rollback_restores_values_and_optimiser() -> None:
    r = rows()
    r.step(np.array([1, 2]), gradients(1.0, 2.0), 0.1)
    r.keep()
    good = r.state()
    for _ in range(3):
        r.step(np.array([2, 3]), gradients(9.0, 9.0), 1.0)
    r.dirty.flags[:] = False
    r.rollback()
    for name, array in r.state().items():
        np.testing.assert_array_equal(array, good[name])
    assert np.flatnonzero(r.dirty.flags).tolist() == [2, 3]
