"""Our modules are ours wherever a process of ours is started."""

import os
import subprocess
import sys

import pytest

from stream.modules import command

START = """
import subprocess
from stream.modules import command
subprocess.run(command("stream.cli", "--help"), check=True, stdout=subprocess.DEVNULL)
"""


@pytest.mark.parametrize("name", ["models", "stream"])
def test_a_package_of_the_same_name_where_the_user_is_does_no_harm(tmp_path, name):
    own = tmp_path / name
    own.mkdir()
    (own / "__init__.py").write_text("raise ImportError('the user has a package of this name')")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-P", "-c", START], cwd=tmp_path, env=environ, check=True)


def test_who_runs_from_the_sources_alone_starts_these(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "-P" in command("stream.cli")
    monkeypatch.syspath_prepend("")
    assert "-P" not in command("stream.cli")
