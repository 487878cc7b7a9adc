"""Become another program that ends with its parent: ``python -m stream.embedded.tether PID ARGV...``.

On Linux the kernel kills this process when the thread of process PID that started it ends, even when
that was killed itself. Elsewhere it only becomes ARGV, and an orderly stop of the parent is needed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tether(parent: int) -> None:
    """Ask to be killed with `parent`; end at once when it has gone already."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit(f"process {parent} ended before this one began")


if __name__ == "__main__":
    tether(int(sys.argv[1]))
    try:
        os.execv(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"{sys.argv[2]}: {error.strerror}")
