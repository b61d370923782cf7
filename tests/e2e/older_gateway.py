"""The gateway of the version before: it starts nodes that speak version 1 (tests/fakes/older_node.py)."""

import runpy
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    from engram.provisioning import local, local_factory

    def with_older_nodes(**settings: Any) -> local.LocalSettings:
        settings["command"] = (sys.executable, "-m", "tests.fakes.older_node")
        return local.LocalSettings(**settings)

    vars(local_factory).update(LocalSettings=with_older_nodes)
    runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
