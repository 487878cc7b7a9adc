"""Late purchases in the whole shop are predicted, unless late labels are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.batch import TASKS
from tests.experiments.delayed import run

CLICKS, PURCHASES = TASKS.index("click"), TASKS.index("purchase")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("delayed", ["wait", "fnw", "fnc"])
def test_late_purchases_are_predicted(delayed: str, seed: int, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    seen = run(delayed, 30, tmp_path, seed).ratio
    assert np.abs(seen - 1).max() < 0.05, seen


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_too_few_purchases_are_predicted_where_late_labels_are_left_out(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    naive = run("naive", 30, tmp_path).ratio[:, 1:]
    assert np.abs(naive[CLICKS] - 1).max() < 0.05, naive
    assert naive[PURCHASES].max() < 0.9, naive
