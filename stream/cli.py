"""The `liverank` command: reads its arguments, calls the code that does it, prints, exits 0, 1 or 2."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stream.errors import LiverankError, SettingsError
from stream.settings import Settings, load

app = typer.Typer(
    help="Recommendations that learn while the visitor is still on the page.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console()
errors = Console(stderr=True)

SETTINGS_FILE = "liverank.toml"

SettingsPath = Annotated[
    Path | None, typer.Option("--settings", help=f"Settings file; {SETTINGS_FILE} here when there is one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


def main() -> None:
    """Entry point: every error of ours becomes one line that says what to do, and exit code 1 (2: usage)."""
    logging.basicConfig(
        level=os.environ.get("LOGLEVEL", "WARNING"), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        app()
    except SettingsError as error:
        errors.print(f"[red]settings:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except LiverankError as error:
        errors.print(f"[red]liverank:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)


def _settings(path: Path | None) -> Settings:
    if path is None and Path(SETTINGS_FILE).exists():
        path = Path(SETTINGS_FILE)
    return load(path, os.environ)


def _stopper() -> Callable[[], bool]:
    """Turn SIGTERM and SIGINT into a question."""
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    return asked.is_set


@app.command()
def run(
    role: Annotated[
        str, typer.Argument(help="rank, train or monitor; without it all three, supervised.")
    ] = "",
    settings: SettingsPath = None,
) -> None:
    """Run the roles on your Kafka and ClickHouse.

    Example: liverank run rank --settings liverank.toml
    """
    from stream.serve import ROLES, serve

    tree = _settings(settings)
    if role and role not in ROLES:
        raise typer.BadParameter(f"{role!r} is not a role: {', '.join(ROLES)}")
    if role:
        serve(role, tree, _stopper(), _tell_ready)
    else:
        from stream.embedded.stack import supervise_roles

        supervise_roles(settings, _stopper(), errors.print)


def _tell_ready() -> None:
    """Create the file by which a supervisor sees that this role takes events."""
    if path := os.environ.get("ROLE_READY_FILE"):
        Path(path).touch()


@app.command()
def check(settings: SettingsPath = None, as_json: AsJson = False) -> None:
    """Load the settings, reach every server, verify the topics.

    Example: liverank check --settings liverank.toml
    """
    from stream.check import check_all

    findings = check_all(_settings(settings))
    if as_json:
        console.print_json(json.dumps([f._asdict() for f in findings]))
    else:
        for finding in findings:
            mark = "[green]ok[/]  " if finding.ok else "[red]bad[/] "
            console.print(f"{mark} {finding.what}: {finding.message}", highlight=False, soft_wrap=True)
    if not all(finding.ok for finding in findings):
        sys.exit(1)


@app.command()
def topics(
    create: Annotated[bool, typer.Option("--create", help="Create those that are missing.")] = False,
    settings: SettingsPath = None,
    as_json: AsJson = False,
) -> None:
    """Check the topics, or create them.

    Example: liverank topics --create
    """
    from stream.check import check_topics, create_topics

    tree = _settings(settings)
    if create:
        create_topics(tree)
    findings = check_topics(tree)
    if as_json:
        console.print_json(json.dumps([f._asdict() for f in findings]))
    else:
        for finding in findings:
            mark = "[green]ok[/]  " if finding.ok else "[red]bad[/] "
            console.print(f"{mark} {finding.what}: {finding.message}", highlight=False, soft_wrap=True)
    if not all(finding.ok for finding in findings):
        sys.exit(1)


@app.command()
def report(settings: SettingsPath = None, as_json: AsJson = False) -> None:
    """Print how it is going, from ClickHouse: the arms side by side, freshness, quality, health.

    Example: liverank report --json
    """
    from stream.clickhouse import Store
    from stream.report import read, render

    found = read(Store(_settings(settings).clickhouse))
    if as_json:
        import msgspec

        console.print_json(msgspec.json.encode(found).decode())
    else:
        console.print(render(found))


if __name__ == "__main__":
    main()
