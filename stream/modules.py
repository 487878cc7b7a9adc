"""How a process of ours starts another one."""

from __future__ import annotations

import os
import sys


def command(module: str, *arguments: str) -> tuple[str, ...]:
    """Command that runs one of our modules.

    ``python -m`` looks for modules in the folder it is started in first: a user's own package `models` there
    would be taken for ours. Only who has been started that way himself has ours from there.

    >>> command("stream.cli", "check")[-3:]
    ('-m', 'stream.cli', 'check')
    """
    from_here = not {"", os.getcwd()}.isdisjoint(sys.path)
    return (sys.executable, *(() if from_here else ("-P",)), "-m", module, *arguments)
