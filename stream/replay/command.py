"""`liverank replay`: read, refuse or publish a recording, with a progress bar."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from stream.broker import KafkaLog
from stream.replay import Flow, newest_ms, read, refuse_old, replay
from stream.settings import Settings

TOLERANCE_MS = 60_000


def play(
    settings: Settings, file: Path, kind: str, speed: float | None, force: bool, console: Console
) -> None:
    """Publish `file` at `speed` times its own speed (None: as fast as the roles learn and keep).

    Raises
    ------
    Fatal
        When the file cannot be read, is older than what the stack has seen, or a role does not move.
    """
    recording = read(file, kind)
    for broken in recording.broken[:5]:
        console.print(f"{file.name}:{broken.line}: left out: {broken.reason}", markup=False, highlight=False)
    if len(recording.broken) > 5:
        console.print(f"... and {len(recording.broken) - 5} more rows left out", highlight=False)
    log = KafkaLog(settings.kafka)
    if not force:
        refuse_old(recording.records, newest_ms(log), TOLERANCE_MS)
    flow = Flow(log, time.monotonic, time.sleep, recording.window())
    started = time.monotonic()
    with Progress(
        TextColumn(file.name),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]:,.0f} records/s"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=len(recording.records), rate=0.0)

        def progress(done: int) -> None:
            bar.update(task, completed=done, rate=done / (time.monotonic() - started))

        replay(
            recording.records,
            log.sink(),
            progress=progress,
            pace=flow.wait,
            speed=speed,
            clock=time.monotonic,
            sleep=time.sleep,
        )
        flow.drain()
    log.close()
    taken = time.monotonic() - started
    console.print(
        f"{len(recording.records):,} records in {taken:.1f} s ({len(recording.records) / taken:,.0f}/s), "
        f"{len(recording.broken)} rows left out; all learned and kept",
        highlight=False,
    )
