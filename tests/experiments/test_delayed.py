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
def test_late_purchases_are_predicted_unless_late_labels_are_left_out(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    fnw, naive = (run(delayed, 30, tmp_path / delayed).ratio[:, 1:] for delayed in ("fnw", "naive"))
    assert np.abs(fnw[CLICKS] - 1).max() < 0.05, fnw
    assert np.abs(naive[CLICKS] - 1).max() < 0.05, naive
    assert np.abs(fnw[PURCHASES] - 1).max() < 0.1, fnw
    assert naive[PURCHASES].max() < 0.9, naive
