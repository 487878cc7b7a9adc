"""Child processes: started, watched, restarted with growing pauses, and ended together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stream.errors import Fatal
from stream.modules import command

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
HEALTHY_S = 30.0
"""A child that lived this long begins with the first pause again."""

DEATHS, WITHIN_S = 5, 60.0
"""So many deaths of one child within so many seconds are not going to mend themselves."""

USERS_END_S, KILL_AFTER_S = 3.0, 4.0
"""Services outlive their users for the first; whoever is left after the second is killed."""

LOWEST_PRIORITY = 19

STEP_S = 0.05
TAIL_LINES, TAIL_BYTES = 12, 8192


@dataclass(frozen=True)
class Child:
    """A program to keep running.

    Parameters
    ----------
    name
        Names its log files, too: ``NAME.out`` and ``NAME.log`` (what it writes to stderr).
    argv
        Path of the program, and its arguments.
    env
        Its whole environment.
    service
        Others use it: at the end it outlives them.
    irreplaceable
        Why a new one could not take its place; when given, its death ends everything.
    ready_file
        The file that it creates when it is ready; it is removed before each start. Without one the child
        prints a line of JSON with ``"ready": true``.
    idle
        It runs only while a core has nothing else to do.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    service: bool = False
    irreplaceable: str = ""
    ready_file: Path | None = None
    idle: bool = False


@dataclass
class _Life:
    """A child's present life, or the pause before the next."""

    child: Child
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float = 0.0
    pause: float = FIRST_PAUSE_S
    deaths: list[float] = field(default_factory=list)
    output_from: int = 0
    errors_from: int = 0
    ready: dict[str, Any] | None = None


class Supervisor:
    """Keeps children running. Call `watch` often, from the thread that called `start`.

    Parameters
    ----------
    directory
        Where log files go.
    report
        Gets a line or more for people whenever a child dies or is given up.
    clock
        Seconds, monotonic.
    sleep
        Waits some seconds.
    """

    def __init__(
        self,
        directory: Path,
        report: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._directory = directory
        self._report = report
        self._clock = clock
        self._sleep = sleep
        self._lives: dict[str, _Life] = {}
        directory.mkdir(parents=True, exist_ok=True)

    def start(self, child: Child) -> None:
        """Start a child and keep it running from now on."""
        self._lives[child.name] = life = _Life(child)
        self._launch(life)

    def ready(self, name: str) -> dict[str, Any] | None:
        """What a child said when it became ready in its present life; None before."""
        return self._lives[name].ready

    def pids(self) -> dict[str, int]:
        """Process ids of the children that run."""
        return {name: life.process.pid for name, life in self._lives.items() if life.process is not None}

    def watch(self) -> None:
        """Look after every child once.

        Raises
        ------
        Fatal
            When an irreplaceable child has died, or one keeps dying.
        """
        for life in self._lives.values():
            if life.process is None:
                if self._clock() >= life.due:
                    self._launch(life)
            elif life.process.poll() is not None:
                self._bury(life, life.process)
            elif life.ready is None:
                life.ready = self._look(life)

    def wait_ready(self, names: list[str], timeout: float, stop: Callable[[], bool]) -> bool:
        """Watch until all of these children are ready; False when `stop` said so before.

        Raises
        ------
        Fatal
            As `watch`; or when a child is not ready in `timeout` seconds.
        """
        deadline = self._clock() + timeout
        while waiting := [name for name in names if self.ready(name) is None]:
            if stop():
                return False
            if self._clock() >= deadline:
                life = self._lives[waiting[0]]
                raise Fatal(f"{waiting[0]} was not ready after {timeout:g} s{self._last_words(life)}")
            self.watch()
            self._sleep(STEP_S)
        return True

    def run(self, stop: Callable[[], bool]) -> None:
        """Watch until `stop` says so."""
        while not stop():
            self.watch()
            self._sleep(STEP_S)

    def stop(self) -> None:
        """End every child within 5 s: first the users, then the services; whoever stays is killed."""
        began = self._clock()
        lives = list(self._lives.values())
        try:
            self._end([life for life in lives if not life.child.service], began + USERS_END_S)
            self._end(lives, began + KILL_AFTER_S)
        finally:
            for life in lives:
                self._kill(life)

    def _launch(self, life: _Life) -> None:
        child = life.child
        if child.ready_file is not None:
            child.ready_file.unlink(missing_ok=True)
        # the child's own program replaces the tether: there is no process in between
        tether = command("stream.embedded.tether", str(os.getpid()))
        with self._path(child, "out").open("ab") as output, self._path(child, "log").open("ab") as errors:
            life.output_from, life.errors_from = output.tell(), errors.tell()
            life.process = subprocess.Popen(
                (*tether, *child.argv),
                env=dict(child.env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                # a terminal's Ctrl-C is for the supervisor, which ends the children in their order; a session
                # of its own would give each child the same share of the cores, see sched(7) on autogroups
                process_group=0,
            )
        if child.idle:
            _let_others_first(life.process.pid)
        life.started = self._clock()

    def _bury(self, life: _Life, process: subprocess.Popen[bytes]) -> None:
        """Say why a child died, and decide what follows."""
        now = self._clock()
        reason = f"{life.child.name} ended ({cause(process.returncode)}) after {now - life.started:.1f} s"
        self._kill(life)
        life.ready = None
        words = self._last_words(life)
        if life.child.irreplaceable:
            raise Fatal(f"{reason}; {life.child.irreplaceable}{words}")
        life.deaths = [at for at in life.deaths if now - at < WITHIN_S] + [now]
        if len(life.deaths) >= DEATHS:
            raise Fatal(f"{reason}; given up: it died {DEATHS} times within {WITHIN_S:g} s{words}")
        if now - life.started >= HEALTHY_S:
            life.pause = FIRST_PAUSE_S
        self._report(f"{reason}; starting it again in {life.pause:g} s{words}")
        life.due = now + life.pause
        life.pause = min(2 * life.pause, LONGEST_PAUSE_S)

    def _look(self, life: _Life) -> dict[str, Any] | None:
        if life.child.ready_file is not None:
            return {"ready": True} if life.child.ready_file.exists() else None
        lines = self._read(life.child, "out", life.output_from).splitlines(keepends=True)
        return next((said for line in lines if (said := ready_line(line)) is not None), None)

    def _last_words(self, life: _Life) -> str:
        lines = self._read(life.child, "log", life.errors_from).splitlines()[-TAIL_LINES:]
        return "".join(f"\n    {line}" for line in lines) + f"\n  log: {self._path(life.child, 'log')}"

    def _read(self, child: Child, kind: str, start: int) -> str:
        path = self._path(child, kind)
        with path.open("rb") as file:
            file.seek(max(start, path.stat().st_size - TAIL_BYTES) if kind == "log" else start)
            return file.read(TAIL_BYTES).decode(errors="replace")

    def _path(self, child: Child, kind: str) -> Path:
        return self._directory / f"{child.name}.{kind}"

    def _end(self, lives: list[_Life], deadline: float) -> None:
        running = [life.process for life in lives if life.process is not None]
        for process in running:
            if process.poll() is None:
                process.terminate()
        while any(process.poll() is None for process in running) and self._clock() < deadline:
            self._sleep(STEP_S)

    def _kill(self, life: _Life) -> None:
        """End what is left of a child: itself, and what it has started."""
        if life.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(life.process.pid, signal.SIGKILL)
            life.process.wait()
            life.process = None


def ready_line(line: str) -> dict[str, Any] | None:
    r"""What a line says, when it is a whole line of JSON with ``"ready": true``.

    >>> ready_line('{"ready": true, "port": 1}\n'), ready_line('{"ready": tr'), ready_line("{}\n")
    ({'ready': True, 'port': 1}, None, None)
    """
    if not (line.startswith("{") and line.endswith("\n")):
        return None
    try:
        said: dict[str, Any] = json.loads(line)
    except ValueError:  # the child may print what it likes
        return None
    return said if said.get("ready") is True else None


def _let_others_first(pid: int) -> None:
    """Give a process, and what it will start, only the time that nobody else wants."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    else:  # not Linux
        os.setpriority(os.PRIO_PROCESS, pid, LOWEST_PRIORITY)


def cause(code: int) -> str:
    """Why a process ended, from its return code.

    >>> cause(-9), cause(3)
    ('signal SIGKILL', 'exit code 3')
    """
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
