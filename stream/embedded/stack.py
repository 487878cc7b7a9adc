"""Everything as child processes: broker, ClickHouse and the roles, or the roles alone."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from msgspec.structs import replace

from stream.embedded.handover import hand_over
from stream.embedded.supervisor import Child, Supervisor
from stream.modules import command
from stream.settings import ClickHouse, Settings

ROLES = ("rank", "train", "monitor")
DIRECTORY = Path(".liverank")
"""Where `supervise_roles` keeps its files, in the working directory."""

SERVICES_S, ROLES_S = 30.0, 300.0
"""How long a start may take; a role compiles kernels the first time."""

SESSION_MS = 2000
"""The embedded broker rebalances only as fast as sessions time out."""


class Addresses(TypedDict):
    """Where a client finds the stack; `topics` gives full names by name."""

    kafka: str
    clickhouse: str
    topics: dict[str, str]


def never() -> bool:
    """Nobody asks for the end."""
    return False


class Stack:
    """A broker, a ClickHouse and the roles, for the time of a ``with`` block.

    The broker's log and its groups end with it; ClickHouse's data and the checkpoints stay in
    `directory`. The schema of ClickHouse is the roles' affair.

    Parameters
    ----------
    settings
        The roles' settings, but for the addresses; their client options are for a cluster of the user's
        and are left out.
    directory
        For data, checkpoints and the children's logs; one stack at a time uses it.
    report
        Gets lines for people whenever a child dies.
    stop
        Asked while starting, and by `run`, whether to end.
    roles
        False starts the servers only; `start_roles` may follow.
    environ
        Environment of the children; its `LIVERANK_*` variables are taken as being in `settings` already.

    Raises
    ------
    Fatal
        From ``with``, `watch` or `run`: a child was not ready in time or keeps dying, or the broker died.
    KeyboardInterrupt
        From ``with``: `stop` asked for the end before the stack was ready.
    """

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        report: Callable[[str], None],
        stop: Callable[[], bool] = never,
        roles: bool = True,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.settings = settings
        self._directory = directory.resolve()
        self._stop = stop
        self._roles = roles
        self._environ = environ
        self.supervisor = Supervisor(self._directory / "logs", report)

    def __enter__(self) -> Stack:
        try:
            self._start_servers()
            if self._roles:
                self.start_roles()
        except BaseException:
            self.supervisor.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.supervisor.stop()

    @property
    def addresses(self) -> Addresses:
        """Where clients find it."""
        kafka = self.settings.kafka
        return {
            "kafka": kafka.bootstrap,
            "clickhouse": self.settings.clickhouse.url,
            "topics": {name: kafka.topic(name) for name in kafka.counts()},
        }

    def start_roles(self) -> None:
        """Start rank, train and monitor, and return when they are ready."""
        file = self._directory / "settings.toml"
        environ = hand_over(self.settings, file, self._environ)
        children = role_children(self._directory, ("--settings", str(file)), environ)
        _start(self.supervisor, children, ROLES_S, self._stop)

    def watch(self) -> None:
        """Look after the children once; call it often."""
        self.supervisor.watch()

    def run(self) -> None:
        """Look after the children until `stop` says so."""
        self.supervisor.run(self._stop)

    def _start_servers(self) -> None:
        kafka = self.settings.kafka
        topics = ",".join(f"{kafka.topic(name)}:{count}" for name, count in kafka.counts().items())
        # a port of its own choice would change when it is started again
        port = free_port()
        broker = self._server(
            "broker", "--topics", topics, irreplaceable="the log is gone with it: start the stack again"
        )
        store = self._server("clickhouse", "--path", str(self._directory / "clickhouse"), "--port", str(port))
        _start(self.supervisor, [broker, store], SERVICES_S, self._stop)
        bootstrap = (self.supervisor.ready("broker") or {})["bootstrap"]
        self.settings = replace(
            self.settings,
            kafka=replace(kafka, bootstrap=bootstrap, session_timeout_ms=SESSION_MS, options={}),
            clickhouse=ClickHouse(
                url=f"http://127.0.0.1:{port}",
                database=self.settings.clickhouse.database,
                ttl_days=self.settings.clickhouse.ttl_days,
            ),
            checkpoints=replace(self.settings.checkpoints, path=str(self._directory / "checkpoints")),
        )

    def _server(self, name: str, *arguments: str, irreplaceable: str = "") -> Child:
        argv = command(f"stream.embedded.{name}", *arguments)
        return Child(name, argv, self._environ, service=True, irreplaceable=irreplaceable)


def supervise_roles(settings: Path | None, stop: Callable[[], bool], report: Callable[[str], Any]) -> None:
    """Run the roles on the user's own servers until `stop` says so.

    Parameters
    ----------
    settings
        The settings file; None lets each role look for it as the command does.
    stop, report
        As for `Stack`.

    Raises
    ------
    Fatal
        When a role keeps dying, or is not ready in time.
    """
    arguments = ("--settings", str(settings)) if settings is not None else ()
    supervisor = Supervisor(DIRECTORY / "logs", report)
    try:
        _start(supervisor, role_children(DIRECTORY.resolve(), arguments, os.environ), ROLES_S, stop)
        supervisor.run(stop)
    except KeyboardInterrupt:
        report("ended before every role was ready")
    finally:
        supervisor.stop()


def role_children(directory: Path, arguments: tuple[str, ...], environ: Mapping[str, str]) -> list[Child]:
    """One child per role; each creates a file in `directory` when it is ready."""
    ready = directory / "ready"
    ready.mkdir(parents=True, exist_ok=True)
    return [
        Child(
            role,
            command("stream.cli", "run", role, *arguments),
            {**environ, "ROLE_READY_FILE": str(ready / role)},
            ready_file=ready / role,
            idle=role == "train",  # visitors wait for rank, and nobody waits for train
        )
        for role in ROLES
    ]


def free_port() -> int:
    """A port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start(supervisor: Supervisor, children: list[Child], timeout: float, stop: Callable[[], bool]) -> None:
    for child in children:
        supervisor.start(child)
    if not supervisor.wait_ready([child.name for child in children], timeout, stop):
        raise KeyboardInterrupt("asked to end while starting")
