"""The `liverank` command: reads its arguments, calls the code that does it, prints, exits 0, 1 or 2."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console, RenderableType

from stream.errors import LiverankError, SettingsError
from stream.settings import Settings, load

if TYPE_CHECKING:
    from stream.check import Finding
    from stream.report import Report

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

        supervise_roles(settings, _stopper(), _tell)


def _tell_ready() -> None:
    """Create the file by which a supervisor sees that this role takes events."""
    if path := os.environ.get("ROLE_READY_FILE"):
        Path(path).touch()


@app.command()
def up(
    settings: SettingsPath = None,
    directory: Annotated[Path, typer.Option(help="Where data, checkpoints and logs go.")] = Path(".liverank"),
    ready_file: Annotated[
        Path | None, typer.Option(help="Write the addresses there, as JSON, once everything answers.")
    ] = None,
) -> None:
    """Start everything on this machine: a broker, ClickHouse, and the three roles. Ctrl-C ends it.

    Example: liverank up --ready-file ready.json
    """
    from stream.embedded.stack import Stack

    stop = _stopper()
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    with (
        _until_stopped(),
        Stack(_settings(settings), directory, _tell, stop) as stack,
    ):
        addresses = stack.addresses
        console.print(f"Kafka       {addresses['kafka']}", highlight=False)
        console.print(f"ClickHouse  {addresses['clickhouse']}", highlight=False)
        topics = ", ".join(addresses["topics"].values())
        console.print(f"topics      {topics}", highlight=False, soft_wrap=True)
        if ready_file is not None:
            partial = ready_file.with_name(ready_file.name + ".partial")
            partial.write_text(json.dumps(addresses))
            partial.replace(ready_file)
        stack.run()


@app.command()
def demo(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long the shop is open.")] = 6.0,
    seed: Annotated[int, typer.Option(help="Of the simulated shop.")] = 0,
    pages: Annotated[float, typer.Option(min=1, help="Pages of 10 items seen per second.")] = 150.0,
    as_json: AsJson = False,
) -> None:
    """Everything on this machine, with a simulated shop and three arms; at the end the report.

    Example: liverank demo --minutes 6
    """
    from stream.demo import play
    from stream.report import render
    from stream.shop import ShopSettings

    shop = ShopSettings(seed=seed, pages_per_s=pages, visitors=max(int(20 * pages), 50))
    with _until_stopped():
        found = play(_settings(None), shop, 60 * minutes, errors, _tell, _stopper())
        _print_report(found, as_json, render)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="The recording; may be gzipped.")],
    format: Annotated[str, typer.Option(help="events, rees46, tmall or trivago.")] = "events",
    speed: Annotated[str, typer.Option(help="Times the recorded speed, or max.")] = "max",
    force: Annotated[bool, typer.Option(help="Even if it is older than what the stack has seen.")] = False,
    settings: SettingsPath = None,
    ready_file: Annotated[Path | None, typer.Option(help="Of `liverank up`: replay into that stack.")] = None,
) -> None:
    """Publish a recorded stream, no faster than the roles learn and keep.

    Example: liverank replay events.jsonl.gz --format events --ready-file ready.json
    """
    from stream.replay.command import play

    times = None if speed == "max" else _positive(speed)
    tree = _settings(settings)
    if ready_file is not None:
        tree = _of_stack(tree, ready_file)
    play(tree, file, format, times, force, errors)


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="The recording; may be gzipped.")],
    format: Annotated[str, typer.Option(help="events, rees46, tmall or trivago.")] = "events",
    sync: Annotated[
        str, typer.Option(help="Also: the model renewed so often, as 1m,10m,1h,5h,never; second half.")
    ] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many records.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of train.seed.")] = None,
    turn: Annotated[
        int, typer.Option(min=1, max=4096, help="Events between two versions of the model.")
    ] = 256,
    river: Annotated[bool, typer.Option(help="Compare with a linear model of river.")] = True,
    settings: SettingsPath = None,
    as_json: AsJson = False,
) -> None:
    """Judge the model on a recorded stream: each list or item is predicted before it is learned from.

    The stream goes through rank and train, on a log in memory, baselines beside them. What is printed is
    the same for the same file and seed; how long it took goes to stderr.

    Example: liverank evaluate events.jsonl.gz --sync 1m,1h,never
    """
    tree = _settings(settings)
    if seed is not None:
        tree = msgspec.structs.replace(tree, train=msgspec.structs.replace(tree.train, seed=seed))
    from stream.evaluate.apart import Apart

    with Apart() as train:  # it comes up while all this does
        from stream.evaluate.command import intervals, run, to_json
        from stream.evaluate.render import render
        from stream.evaluate.run import Options

        options = Options(turn=turn, sync_ms=intervals(sync), linear=river)
        figures = run(tree, file, format, limit, options, train, errors)
    if as_json:
        print(to_json(figures, file, format, tree, options))
    else:
        console.print(render(figures))


@app.command()
def check(settings: SettingsPath = None, as_json: AsJson = False) -> None:
    """Load the settings, reach every server, verify the topics.

    Example: liverank check --settings liverank.toml
    """
    from stream.check import check_all

    findings = check_all(_settings(settings))
    _print_findings(findings, as_json)
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
    _print_findings(findings, as_json)
    if not all(finding.ok for finding in findings):
        sys.exit(1)


@app.command()
def report(
    settings: SettingsPath = None,
    ready_file: Annotated[Path | None, typer.Option(help="Of `liverank up`: report on that stack.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print how it is going, from ClickHouse: the arms side by side, freshness, quality, health.

    Example: liverank report --json
    """
    from stream.clickhouse import Store
    from stream.report import read, render

    tree = _settings(settings)
    if ready_file is not None:
        tree = _of_stack(tree, ready_file)
    _print_report(read(Store(tree.clickhouse)), as_json, render)


def _print_report(found: Report, as_json: bool, render: Callable[[Report], RenderableType]) -> None:
    if as_json:
        print(msgspec.json.encode(found).decode())
    else:
        console.print(render(found))


def _print_findings(findings: list[Finding], as_json: bool) -> None:
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings]))
        return
    for finding in findings:
        mark = "[green]ok[/]  " if finding.ok else "[red]bad[/] "
        console.print(f"{mark} {finding.what}: {finding.message}", highlight=False, soft_wrap=True)


def _of_stack(tree: Settings, ready_file: Path) -> Settings:
    """Take the addresses from the file that `liverank up` wrote."""
    try:
        addresses = json.loads(ready_file.read_text())
        replace = msgspec.structs.replace
        return replace(
            tree,
            kafka=replace(tree.kafka, bootstrap=addresses["kafka"]),
            clickhouse=replace(tree.clickhouse, url=addresses["clickhouse"]),
        )
    except (OSError, ValueError, KeyError) as error:
        raise SettingsError(f"{ready_file}: not a ready file of `liverank up`: {error}") from None


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise typer.BadParameter(f"--speed {text}: a number above 0, or max")
    return value


@contextmanager
def _until_stopped() -> Iterator[None]:
    """Being asked to end while things start is no error."""
    try:
        yield
    except KeyboardInterrupt:
        errors.print("ended before everything was ready")


def _tell(line: str) -> None:
    errors.print(line, highlight=False, soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
