"""What is installed from npm for tests, and the reason to skip where it is not."""

import platform
import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "node"
ANVIL = FOLDER / "node_modules" / "@foundry-rs" / "anvil-linux-amd64" / "bin" / "anvil"

missing = not ANVIL.is_file() or shutil.which("node") is None
reason = "needs Node: run scripts/setup-node"
if platform.machine() not in ("x86_64", "AMD64"):
    reason = f"needs Node, and a machine of the kind x86_64, not {platform.machine()}: run scripts/setup-node"

needs_node = pytest.mark.skipif(missing, reason=reason)
