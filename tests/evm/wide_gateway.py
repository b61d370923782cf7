"""The gateway on a host that is said to hold any number of nodes, with stubs for nodes: payments are tried here."""

import runpy
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    from engram.provisioning import capacity, local, local_factory
    from tests.fakes import fake_node

    def with_stub_nodes(**settings: Any) -> local.LocalSettings:
        settings["command"] = (sys.executable, "-S", "-E", fake_node.__file__)
        return local.LocalSettings(**settings)

    vars(capacity).update(CPU_FACTOR=1_000, MEMORY_FACTOR=1_000)
    vars(local_factory).update(LocalSettings=with_stub_nodes)
    runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
