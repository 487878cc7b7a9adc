"""Kernels do the same compiled and as plain Python, and stay within their arrays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stream.rank.candidates import SOURCES
from tests.stream.rank.kernels import run


def _elsewhere(path: Path, **environ: str) -> dict[str, np.ndarray]:
    """What the kernels write in another process with these variables."""
    command = [sys.executable, "-m", "tests.stream.rank.kernels", str(path / "found.npz")]
    subprocess.run(command, check=True, env={**os.environ, **environ}, timeout=200)
    return dict(np.load(path / "found.npz"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return run(tmp_path_factory.mktemp("compiled"))


def _assert_alike(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_kernels_do_the_same_compiled_and_as_plain_python(
    compiled: dict[str, np.ndarray], tmp_path: Path
) -> None:
    _assert_alike(compiled, _elsewhere(tmp_path, NUMBA_DISABLE_JIT="1"))


def test_the_random_case_reaches_what_it_is_to_compare(compiled: dict[str, np.ndarray]) -> None:
    features = compiled["seen.features"]
    assert (features.std(0) > 0).mean() > 0.9
    assert set(compiled["offers.source"]) == set(range(len(SOURCES)))
    assert compiled["seen.next_count"][0] > 5
    assert (compiled["seen.act.place"] >= 0).any()
    assert (compiled["seen.act.place"] < 0).any()


@pytest.mark.slow
def test_kernels_stay_within_their_arrays(compiled: dict[str, np.ndarray], tmp_path: Path) -> None:
    checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    _assert_alike(compiled, _elsewhere(tmp_path, **checked))
