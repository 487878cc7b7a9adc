from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.experiments.policies import BREAK, STEP_S, reached, run


@pytest.mark.slow
def test_dynamic_recovers_like_full_and_costs_in_calm_like_sparse(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    full, at_full = run("full", tmp_path)
    level = reached(at_full)
    sparse, _ = run("sparse", tmp_path, level)
    dynamic, at_dynamic = run("dynamic", tmp_path, level)
    modes = at_dynamic.modes
    assert modes[int(BREAK / STEP_S) - 1] == "sparse"
    assert "full" in modes[int(BREAK / STEP_S) : int((BREAK + 15) / STEP_S)]
    # in calm
    assert dynamic.loss < full.loss + 0.01
    assert dynamic.lists_per_s > max(2 * full.lists_per_s, 0.5 * sparse.lists_per_s)
    assert dynamic.bytes < 1.3 * sparse.bytes < 0.7 * full.bytes
    # after the break
    assert dynamic.loss_after < full.loss_after + 0.2 * (sparse.loss_after - full.loss_after)
    assert dynamic.back <= full.back + 10
