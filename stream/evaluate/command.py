"""`liverank evaluate`: reads a recording, runs it with a progress bar, prints the figures."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from stream.errors import SettingsError
from stream.evaluate.apart import Turns
from stream.evaluate.figures import Figures
from stream.evaluate.render import tell
from stream.evaluate.run import Options, evaluate
from stream.replay import Recording, read
from stream.settings import Settings

UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def intervals(text: str) -> tuple[tuple[str, int | None], ...]:
    """Intervals of `--sync` in ms, by name; `never` is None.

    Raises
    ------
    SettingsError
        Saying how they are written.

    Examples
    --------
    >>> intervals("1m,5h,never")
    (('1m', 60000), ('5h', 18000000), ('never', None))
    """
    return tuple((name, _interval(name)) for name in map(str.strip, text.split(",")) if name)


def run(
    settings: Settings, file: Path, kind: str, limit: int | None, options: Options, train: Turns,
    console: Console,
) -> Figures:  # fmt: skip
    """Evaluate the first `limit` records of `file`; progress and speed go to `console`.

    Raises
    ------
    Fatal
        When the file cannot be read, or has no events.
    """
    recording = read(file, kind)
    _tell_broken(recording, file.name, console)
    records = recording.records[:limit]
    folder = tempfile.TemporaryDirectory(prefix="liverank-")
    with folder as directory, _bar(file.name, console) as bar:
        task = bar.add_task("", total=len(records))
        figures, speed = evaluate(
            records,
            settings,
            options,
            Path(directory),
            train,
            timer=time.monotonic,
            progress=lambda done: bar.update(task, completed=done),
        )
    console.print(tell(speed), highlight=False, soft_wrap=True)
    return figures


def to_json(figures: Figures, file: Path, kind: str, settings: Settings, options: Options) -> str:
    """The figures and what they depend on: the same bytes for the same input."""
    asked = {"file": file.name, "format": kind, "seed": settings.train.seed, "turn": options.turn}
    return msgspec.json.encode(asked | msgspec.to_builtins(figures)).decode()


def _interval(name: str) -> int | None:
    if name == "never":
        return None
    count, unit = name[:-1], name[-1]
    if unit not in UNITS or not count.isdigit() or int(count) == 0:
        raise SettingsError(f"--sync {name}: a number and {', '.join(UNITS)}, for example 10m; or never")
    return int(count) * UNITS[unit]


def _tell_broken(recording: Recording, name: str, console: Console) -> None:
    for broken in recording.broken[:5]:
        console.print(f"{name}:{broken.line}: left out: {broken.reason}", markup=False, highlight=False)
    if len(recording.broken) > 5:
        console.print(f"... and {len(recording.broken) - 5} more rows left out", highlight=False)


def _bar(name: str, console: Console) -> Progress:
    columns = (TextColumn(name), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)
