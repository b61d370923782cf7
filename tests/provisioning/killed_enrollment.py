"""A gateway that enrolls the one node of a ledger; made to be killed.

`python -m tests.provisioning.killed_enrollment <folder> <endpoint>`; exit status 0: the node is healthy.
"""

import sys
from pathlib import Path

import trio

from engram.clock import SystemClock
from engram.http.client import HttpClient
from engram.ledger import open_inline
from engram.provisioning.enrollment import Enrollment, EnrollmentPorts
from engram.provisioning.hotkey_ring import HotkeyRing
from engram.sessions import ClockInstants
from engram.telemetry.metrics import Metrics
from tests.provisioning.foreign_nodes import TOKEN


async def run(folder: Path, endpoint: str) -> bool:
    enrollment = Enrollment(
        EnrollmentPorts(
            http=HttpClient(),
            ledger=open_inline(folder / "ledger.sqlite3"),
            instants=ClockInstants(SystemClock()),
            ring=HotkeyRing(folder / "hotkeys", lambda _: None),
            metrics=Metrics(),
            launch_timeout_s=30.0,
        )
    )
    return await enrollment.is_healthy(endpoint, TOKEN)


if __name__ == "__main__":
    sys.exit(0 if trio.run(run, Path(sys.argv[1]), sys.argv[2]) else 1)
