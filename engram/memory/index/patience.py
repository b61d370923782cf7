"""Priority of a background builder, raised over time so that it finishes on a machine that is never idle.

At niceness 15 a process gets a thirtieth of an ordinary one's share: next to nothing among a dozen busy processes. So a
builder keeps it for five times as long as its work should take, then runs at 5, then at 0.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

NICENESS: Final = (15, 5, 0)
_LEAST_S: Final = 5.0
_PER_VECTOR_S: Final = 0.0005
"""Five times what a vector of 384 numbers takes on an idle machine: 100,000 took 10 s."""


def niceness(waited_s: float, vectors: int) -> int:
    """Return the niceness of a builder of that many vectors after that many seconds.

    >>> [niceness(waited_s, 20_000) for waited_s in (0, 9, 10, 29, 30, 10_000)]
    [15, 15, 5, 5, 0, 0]
    """
    patience_s = max(_LEAST_S, _PER_VECTOR_S * vectors)
    if waited_s < patience_s:
        return NICENESS[0]
    return NICENESS[1] if waited_s < 3 * patience_s else NICENESS[2]


def relax(process: int, to: int) -> bool:
    """Set the niceness of all threads of a child process; return False when this user may not raise their priority."""
    try:
        for thread in Path(f"/proc/{process}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), to)
    except PermissionError:
        return False
    except OSError:  # a thread, or the process, has ended meanwhile
        return True
    return True
