from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from numba.core import config

from models.kernels import folder

CALLED = "import numba\n@numba.njit(cache=True)\ndef called(x):\n    return x + {0}\n"
CALLER = (
    "import numba\nfrom called import called\n@numba.njit(cache=True)\ndef caller(x):\n    return called(x)\n"
)
RUN = """
import sys
from pathlib import Path
import numba
from models.kernels import folder
sources, numba.config.CACHE_DIR = Path(sys.argv[1]), sys.argv[2]
numba.config.CACHE_DIR = str(folder(sources, ["*.py"]))
sys.path.insert(0, str(sources))
from caller import caller
print(caller(1))
"""


def test_a_kernel_is_compiled_anew_when_what_it_calls_has_changed(tmp_path: Path) -> None:
    sources, cache = tmp_path / "sources", tmp_path / "cache"
    sources.mkdir()
    (sources / "caller.py").write_text(CALLER)
    said = []
    for n in (1, 2):
        (sources / "called.py").write_text(CALLED.format(n))
        command = [sys.executable, "-c", RUN, str(sources), str(cache)]
        said.append(subprocess.run(command, check=True, capture_output=True, text=True, timeout=100).stdout)
    assert said == ["2\n", "3\n"]
    assert len(list(cache.iterdir())) == 2


def test_kernels_of_the_same_sources_have_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    (tmp_path / "a.py").write_text("x")
    before = folder(tmp_path, ["*.py"])
    assert before == folder(tmp_path, ["*.py"])
    assert before.parent == tmp_path / "mine" / "liverank"
    (tmp_path / "a.py").write_text("y")
    assert folder(tmp_path, ["*.py"]) != before
