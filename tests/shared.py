"""What a machine may lack and no set-up can install: the folder of reference material beside the checkout (../shared),
the right to mount a disk. Tests that need them skip without."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("ENGRAM_SHARED") or Path(__file__).parents[2] / "shared")

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared is absent")

NO_MOUNT = "this machine lets no test mount a disk of its own"
