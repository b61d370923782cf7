"""The gateway with stub nodes, its threads changing places every microsecond where it finds its nodes again.

ENGRAM_TEST_MOVED names a file that gets one line for each node that was told when it must end. The threads that tell
it meet first, ENGRAM_TEST_MEET of them: what each of them uses for the first time, all use for the first time at once.
"""

import contextlib
import os
import runpy
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    sys.setswitchinterval(1e-6)
    from engram.provisioning import capacity, local, local_factory, node_folder
    from tests.fakes import fake_node

    vars(capacity).update(CPU_FACTOR=1_000, MEMORY_FACTOR=1_000)
    move_end, meeting = node_folder.move_end, threading.Barrier(int(os.environ["ENGRAM_TEST_MEET"]))

    def move_end_together(folder: Path, ends_at: float) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(5)
        move_end(folder, ends_at)
        with open(os.environ["ENGRAM_TEST_MOVED"], "ab", buffering=0) as moved:
            moved.write(b"moved\n")

    def with_stub_nodes(**settings: Any) -> local.LocalSettings:
        settings["command"] = (sys.executable, "-S", "-E", fake_node.__file__)
        return local.LocalSettings(**settings)

    vars(node_folder).update(move_end=move_end_together)
    vars(local_factory).update(LocalSettings=with_stub_nodes)
    runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
