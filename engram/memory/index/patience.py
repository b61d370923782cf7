"""How a builder of low priority gets its work done on a machine that is never idle.

A niceness of 15 has a thirtieth of an ordinary process's share: beside a dozen busy ones that is next to nothing. So a
builder is nice for as long as its work would take it five times over, then less, then not at all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

NICENESS: Final = (15, 5, 0)
_LEAST_S: Final = 5.0
_PER_VECTOR_S: Final = 0.0005
"""Five times what a vector of 384 numbers takes alone: 100,000 took 10 s."""


def niceness(waited_s: float, vectors: int) -> int:
    """Returns how nice a builder of so many vectors is after so many seconds.

    >>> [niceness(waited_s, 20_000) for waited_s in (0, 9, 10, 29, 30, 10_000)]
    [15, 15, 5, 5, 0, 0]
    """
    patience_s = max(_LEAST_S, _PER_VECTOR_S * vectors)
    if waited_s < patience_s:
        return NICENESS[0]
    return NICENESS[1] if waited_s < 3 * patience_s else NICENESS[2]


def relax(process: int, to: int) -> bool:
    """Gives all threads of a child process that niceness; False where this user may not make them less nice."""
    try:
        for thread in Path(f"/proc/{process}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), to)
    except PermissionError:
        return False
    except OSError:  # a thread, or the process, has ended meanwhile
        return True
    return True
