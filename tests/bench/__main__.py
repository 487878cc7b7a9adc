"""Benches: ours and its alternative, measured in the same run: ``python -m tests.bench [NAME ...]``.

They measure, they do not judge: nothing here fails because a machine is slow.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from tests.bench.measure import Context, Figure, Skip, load, machine

BENCHES = ("ingest", "score", "train", "gpu", "delta", "latency", "kafka")
"""Modules of this package, each with a function `run`, in the order in which they run."""


WIDTH = 140
"""Columns where there is no terminal: lines that others read must not be broken."""


def main(argv: list[str] | None = None) -> int:
    """Run the benches that are named, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument(
        "--quick", action="store_true", help="only see that they run: the figures mean nothing"
    )
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.names if name not in BENCHES]:
        parser.error(f"no bench {unknown[0]!r}; there are {', '.join(BENCHES)}")
    console = Console(stderr=arguments.json)
    if not console.is_terminal:
        console.width = WIDTH
    here = machine()
    console.print(", ".join(f"{name} {value}" for name, value in here.items()), highlight=False)
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="liverank-bench-") as directory:
        context = Context(Path(directory), arguments.quick)
        for name in arguments.names or BENCHES:
            results[name] = _run(name, context, console)
    if arguments.json:
        said = msgspec.json.encode(
            {"machine": here, "quick": arguments.quick, "benches": results},
            enc_hook=float,  # numpy numbers
        )
        print(msgspec.json.format(said).decode())
    return 0


def _run(name: str, context: Context, console: Console) -> object:
    """Run one bench, show it, and return it as plain data."""
    module = importlib.import_module(f"tests.bench.{name}")
    began, busy = time.monotonic(), load()
    try:
        figures: list[Figure] = module.run(context)
    except Skip as reason:
        console.print(f"{name}: skipped: {reason}", markup=False, highlight=False)
        return {"skipped": str(reason)}
    seconds = time.monotonic() - began
    title = (module.__doc__ or "").partition("\n")[0]
    console.print(_table(f"{name}: {title} ({seconds:.0f} s; load before: {busy})", figures))
    rows = [{**figure._asdict(), "ratio": figure.ratio} for figure in figures]
    return {"load": busy, "seconds": round(seconds, 1), "figures": rows}


def _table(title: str, figures: list[Figure]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("what", "unit", "ours", "alternative", "its", "ours / its"):
        table.add_column(column, justify="right" if column in ("ours", "its", "ours / its") else "left")
    for figure in figures:
        table.add_row(
            figure.what,
            figure.unit,
            number(figure.ours),
            figure.alternative,
            number(figure.other),
            f"{figure.ratio:.2f}",
        )
    return table


def number(value: float) -> str:
    """Three digits that matter.

    >>> number(123456.7), number(12.345), number(0.01234)
    ('123,457', '12.3', '0.0123')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
