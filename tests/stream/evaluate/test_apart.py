"""Train in a process of its own: the same figures, and what goes wrong there is told here."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import msgspec
import pytest

from stream.errors import Fatal
from stream.evaluate.apart import Apart, Here
from stream.evaluate.run import Options, evaluate, still
from tests.stream.evaluate.streams import SMALL, START_MS, lists


def test_figures_are_the_same_wherever_train_is(tmp_path):
    told = []
    with Apart() as apart:
        for name, train in (("here", Here()), ("apart", apart)):
            timer, options = itertools.count().__next__, Options(turn=16, linear=False)
            figures, _ = evaluate(lists(60), SMALL, options, tmp_path / name, train, timer=timer)
            told.append(msgspec.json.encode(figures))
    assert told[0] == told[1]


def test_what_is_raised_there_is_raised_here(tmp_path):
    with Apart() as train:
        small = msgspec.structs.replace(SMALL.train, buffer_lists=4)
        settings = msgspec.structs.replace(SMALL, train=small)
        with pytest.raises(Fatal, match="smaller --turn") as raised:
            evaluate(lists(20), settings, Options(), tmp_path, train, timer=itertools.count().__next__)
    assert "in learned" in raised.value.__notes__[0]


def test_a_process_that_dies_is_told_with_its_exit_code(tmp_path):
    with Apart() as train:
        answer = train.begin(still(SMALL), tmp_path, START_MS / 1000)
        os.kill(train.process.pid, signal.SIGKILL)
        with pytest.raises(Fatal, match="has died, exit code -9"):
            answer()


def test_a_process_that_has_died_before_it_is_asked_is_told_as_well(tmp_path):
    with Apart() as train:
        os.kill(train.process.pid, signal.SIGKILL)
        train.process.wait()
        with pytest.raises(Fatal, match="has died"):
            train.begin(still(SMALL), tmp_path, START_MS / 1000)()


def test_the_process_ends_with_the_context():
    with Apart() as train:
        assert train.process.poll() is None
    assert train.process.poll() is not None


def test_the_process_ends_when_this_one_is_killed(tmp_path):
    script = (
        "import sys; from stream.evaluate.apart import Apart; print(Apart().process.pid); sys.stdout.flush()"
    )
    with subprocess.Popen([sys.executable, "-c", script + "; input()"], stdin=PIPE, stdout=PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()
