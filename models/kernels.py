"""Where compiled kernels are kept.

numba keeps them beside their sources, and compiles one anew when its own file has changed; but what it
calls in other files is compiled into it. After an upgrade old code would go on. So kernels have a folder for
each state of all their sources; old ones may be deleted at any time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

from numba.core import config

SOURCES = ("models/*.py", "stream/rank/*.py")
"""Files that kernels, and the constants in them, are made of."""


def user_cache() -> Path:
    """Folder for what can be made again, of the user who runs this."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "liverank"


def folder(root: Path, sources: Iterable[str] = SOURCES) -> Path:
    """Folder of the kernels that are compiled from `sources` (patterns) below `root`."""
    key = 0
    for path in sorted(path for pattern in sources for path in root.glob(pattern)):
        key = crc32(path.read_bytes(), key)
    given: str = config.CACHE_DIR  # type: ignore[attr-defined]  # NUMBA_CACHE_DIR
    return Path(given or user_cache()) / f"kernels-{key:08x}"


def keep_apart() -> None:
    """Keep kernels in their folder; call it before any is defined."""
    config.CACHE_DIR = str(folder(Path(__file__).parents[1]))  # type: ignore[attr-defined]
