"""The folder of reference material that may lie beside the checkout (../shared); its tests skip without it."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("ENGRAM_SHARED") or Path(__file__).parents[2] / "shared")

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared is absent")
