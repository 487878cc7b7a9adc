"""Rules of the supervisor, with small children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.embedded.stack import never
from stream.embedded.supervisor import Child, Supervisor
from stream.errors import Fatal

READY = 'import json, time\nprint(json.dumps({"ready": True, "port": 7}), flush=True)\n'
STAYS = READY + "time.sleep(60)\n"
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + STAYS
DIES = "import sys\nprint('cannot go on', file=sys.stderr)\nsys.exit(3)\n"


class Clock:
    """Time that passes only where the supervisor waits, or where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        time.sleep(0.001)


class Stage:
    """A supervisor on a clock of its own, and what it reported."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.reports: list[str] = []
        self.clock = Clock()
        self.supervisor = Supervisor(directory / "logs", self.reports.append, self.clock, self.clock.sleep)

    def child(self, name: str, code: str, **options: Any) -> Child:
        script = self.directory / f"{name}.py"
        script.write_text(code)
        return Child(name, (sys.executable, str(script)), dict(os.environ), **options)

    def start(self, name: str, code: str, **options: Any) -> None:
        self.supervisor.start(self.child(name, code, **options))

    def die(self, name: str) -> None:
        """Wait until a child has died and watch once."""
        pid = self.supervisor.pids()[name]
        until(lambda: state(pid) in "ZX")
        self.supervisor.watch()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.supervisor.stop()


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state(pid: int) -> str:
    """Letter of a process' state; X when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"


def gone(pid: int) -> bool:
    return state(pid) in "ZX"


def ready(stage: Stage, name: str) -> bool:
    stage.supervisor.watch()
    return stage.supervisor.ready(name) is not None


def test_a_child_is_ready_when_it_says_so(stage: Stage) -> None:
    stage.start("a", "print('{not json', flush=True)\n" + STAYS)
    assert stage.supervisor.ready("a") is None
    until(lambda: ready(stage, "a"))
    assert stage.supervisor.ready("a") == {"ready": True, "port": 7}


def test_a_child_is_ready_when_its_file_is_there_and_not_by_that_of_an_earlier_life(stage: Stage) -> None:
    file = stage.directory / "ready"
    file.touch()
    stage.start("a", "import time\ntime.sleep(60)", ready_file=file)
    assert not ready(stage, "a")
    file.touch()
    assert ready(stage, "a")


def test_a_child_that_dies_is_started_again_after_a_pause_and_the_reason_is_told(stage: Stage) -> None:
    stage.start("a", DIES)
    stage.die("a")
    assert "a ended (exit code 3)" in stage.reports[0]
    assert "starting it again in 0.2 s\n    cannot go on\n" in stage.reports[0]
    stage.supervisor.watch()
    assert "a" not in stage.supervisor.pids()
    stage.clock.now += 0.2
    stage.supervisor.watch()
    assert "a" in stage.supervisor.pids()


def test_a_signal_is_named(stage: Stage) -> None:
    stage.start("a", STAYS)
    os.kill(stage.supervisor.pids()["a"], signal.SIGKILL)
    stage.die("a")
    assert "a ended (signal SIGKILL)" in stage.reports[0]


def test_a_child_that_died_is_not_ready_any_more(stage: Stage) -> None:
    stage.start("a", STAYS)
    until(lambda: ready(stage, "a"))
    os.kill(stage.supervisor.pids()["a"], signal.SIGKILL)
    stage.die("a")
    assert stage.supervisor.ready("a") is None


def test_only_the_last_words_of_the_last_life_are_shown(stage: Stage) -> None:
    count = stage.directory / "count"
    stage.start(
        "a",
        f"open({str(count)!r}, 'a').write('x')\n"
        + DIES.replace("on'", f"on', len(open({str(count)!r}).read())"),
    )
    stage.die("a")
    stage.clock.now += 1
    stage.supervisor.watch()
    stage.die("a")
    assert "cannot go on 2" in stage.reports[1]
    assert "cannot go on 1" not in stage.reports[1]


def test_pauses_double_up_to_ten_seconds(stage: Stage) -> None:
    pauses = []
    stage.start("a", DIES)
    for _ in range(8):
        stage.die("a")
        pauses.append(float(stage.reports[-1].split("again in ")[1].split(" s")[0]))
        stage.clock.now += 16  # seldom enough not to be given up
        stage.supervisor.watch()
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_thirty_seconds_of_life_bring_the_first_pause_back(stage: Stage) -> None:
    stage.start("a", DIES)
    stage.die("a")
    stage.clock.now += 1
    stage.supervisor.watch()
    stage.clock.now += 30
    stage.die("a")
    assert "starting it again in 0.2 s" in stage.reports[1]


def test_five_deaths_within_a_minute_are_fatal(stage: Stage) -> None:
    stage.start("a", DIES)
    for _ in range(4):
        stage.die("a")
        stage.clock.now += 10
        stage.supervisor.watch()
    with pytest.raises(Fatal, match=r"(?s)given up: it died 5 times within 60 s.*cannot go on"):
        stage.die("a")


def test_the_death_of_an_irreplaceable_child_is_fatal_and_says_why(stage: Stage) -> None:
    stage.start("broker", DIES, irreplaceable="the log is gone")
    with pytest.raises(Fatal, match=r"broker ended \(exit code 3\).*the log is gone"):
        stage.die("broker")


def test_a_program_that_does_not_exist_is_named(stage: Stage) -> None:
    stage.supervisor.start(Child("a", ("/no/such/program",), dict(os.environ)))
    stage.die("a")
    assert "/no/such/program: No such file or directory" in stage.reports[0]


def test_a_child_that_is_not_ready_in_time_is_fatal(stage: Stage) -> None:
    stage.start("a", "import time\ntime.sleep(60)")
    with pytest.raises(Fatal, match="a was not ready"):
        stage.supervisor.wait_ready(["a"], 0.5, never)


def test_waiting_ends_when_it_is_asked_to(stage: Stage) -> None:
    stage.start("a", "import time\ntime.sleep(60)")
    assert not stage.supervisor.wait_ready(["a"], 60, lambda: True)


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux has this policy")
def test_an_idle_child_leaves_the_cores_to_others(stage: Stage) -> None:
    stage.start("busy", STAYS)
    stage.start("idle", STAYS, idle=True)
    pids = stage.supervisor.pids()
    policies = [os.sched_getscheduler(pids[name]) for name in ("busy", "idle")]
    assert policies == [os.SCHED_OTHER, os.SCHED_IDLE]


def test_a_child_has_a_group_of_its_own_but_no_session_for_priorities_count_within_one(stage: Stage) -> None:
    stage.start("a", STAYS)
    (pid,) = stage.supervisor.pids().values()
    assert (os.getpgid(pid), os.getsid(pid)) == (pid, os.getsid(0))


def test_services_outlive_their_users(stage: Stage) -> None:
    order = stage.directory / "order"
    slow = (
        "import signal, sys\n"
        "def end(*_):\n    time.sleep({pause})\n    open({order!r}, 'a').write({name!r})\n    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
    )
    supervisor = Supervisor(stage.directory / "logs", print)  # on the real clock: it has to wait
    for name, pause, service in (("S", 0.0, True), ("u", 0.3, False)):
        code = "import time\n" + slow.format(pause=pause, order=str(order), name=name) + STAYS
        supervisor.start(stage.child(name, code, service=service))
    assert supervisor.wait_ready(["S", "u"], 20, never)
    supervisor.stop()
    assert order.read_text() == "uS"


def test_whoever_ignores_the_end_is_killed_and_so_is_what_it_has_started(stage: Stage) -> None:
    grandchild = f"import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', {STUBBORN!r}])\n"
    file = stage.directory / "pid"
    stage.start("a", grandchild + f"open({str(file)!r}, 'w').write(str(p.pid))\n" + STUBBORN)
    until(lambda: ready(stage, "a"))
    pids = [stage.supervisor.pids()["a"], int(file.read_text())]
    stage.supervisor.stop()
    until(lambda: all(map(gone, pids)))
    assert stage.clock.now < 5.0
    assert stage.supervisor.pids() == {}


PARENT = """
import os, sys, threading, signal
from pathlib import Path
from stream.embedded.supervisor import Child, Supervisor
asked = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: asked.set())
supervisor = Supervisor(Path(sys.argv[1]), print)
for script in sys.argv[2:]:
    supervisor.start(Child(Path(script).stem, (sys.executable, script), dict(os.environ)))
assert supervisor.wait_ready([Path(script).stem for script in sys.argv[2:]], 20, asked.is_set)
print(*supervisor.pids().values(), flush=True)
supervisor.run(asked.is_set)
supervisor.stop()
"""


@pytest.mark.parametrize(("ask", "seconds"), [(signal.SIGTERM, 5.5), (signal.SIGKILL, 2.0)])
def test_no_child_outlives_its_supervisor(tmp_path: Path, ask: signal.Signals, seconds: float) -> None:
    scripts = [tmp_path / "stays.py", tmp_path / "stubborn.py"]
    for script, code in zip(scripts, (STAYS, STUBBORN), strict=True):
        script.write_text(code)
    argv = [sys.executable, "-c", PARENT, str(tmp_path / "logs"), *map(str, scripts)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(map(gone, pids))
        began = time.monotonic()
        parent.send_signal(ask)
        parent.wait(timeout=10)
        until(lambda: all(map(gone, pids)))
        assert time.monotonic() - began < seconds
