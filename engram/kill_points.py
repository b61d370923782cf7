"""Places where a test may kill the process, so that booting can be shown to recover from each of them.

`ENGRAM_KILL_AT=<point>` together with `ENGRAM_TEST_KILL=1` arms one point. Points are `commit:<n>` (right after
the n-th COMMIT, before anybody is told), `begin:<n>` (right before it), and the names given to `point`. Unarmed,
a point costs one comparison.
"""

import os
import signal

_armed = os.environ.get("ENGRAM_KILL_AT", "") if os.environ.get("ENGRAM_TEST_KILL") == "1" else ""
_trace = os.environ.get("ENGRAM_KILL_TRACE", "") if os.environ.get("ENGRAM_TEST_KILL") == "1" else ""


def point(name: str) -> None:
    """Die here by SIGKILL when this point is armed; note the passing when a trace file is named."""
    if _trace:
        with open(_trace, "a", encoding="utf-8") as trace:
            trace.write(name + "\n")
    if _armed and name == _armed:
        os.kill(os.getpid(), signal.SIGKILL)
