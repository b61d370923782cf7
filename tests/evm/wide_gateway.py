"""The gateway on a host that is said to hold any number of nodes: what it holds is not what is tried here."""

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    from engram.provisioning import capacity

    vars(capacity).update(CPU_FACTOR=1_000, MEMORY_FACTOR=1_000)
    runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
