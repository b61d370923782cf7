"""The memory hook in a process that has torch itself loaded: ENGRAM_TEST_TORCH names the folder that torch is in.

`pip install --target FOLDER torch` makes one, of some gigabytes. With a GPU it shows the release as well.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = os.environ.get("ENGRAM_TEST_TORCH", "")

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.nightly,
    pytest.mark.external,
    pytest.mark.skipif(not SITE, reason="torch is not here: ENGRAM_TEST_TORCH names no folder with it"),
]


def test_the_hook_does_with_torch_itself_what_it_does_with_the_stand_in() -> None:
    environ = {**os.environ, "PYTHONPATH": SITE}
    command = [sys.executable, "-m", "tests.gpu.real_torch"]
    ran = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["idle"] == [], "nothing is reserved before a GPU was used"
    if not found["available"]:
        assert (found["free_gb"], found["context"]) == (0.0, False)
        return
    (held,), (cached,) = found["held"], found["cached"]
    assert held["allocated_bytes"] >= 1_000_000_000
    assert (cached["allocated_bytes"], cached["reserved_bytes"]) == (0, held["reserved_bytes"])
    assert found["released"] == []
    assert found["given_back_gb"] >= 1.0
