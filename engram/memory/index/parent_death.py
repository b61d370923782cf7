"""A process that ends with the one that started it, and tells it what happens."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> bool:
    """Asks the kernel to kill this process when its parent dies. False when the parent is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def tell(line: str) -> None:
    """Writes a line to standard error, which is the parent's; on a full disk it is lost, and nothing else."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)
