"""`make demo-relay`, as a user runs it."""

import subprocess
import sys

import pytest

from tests.e2e.gateway_process import ROOT


@pytest.mark.nightly
@pytest.mark.heavy
def test_one_payload_goes_from_a_poll_to_an_anchored_answer() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/demo_relay.py"], cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = " ".join(done.stdout.split())
    assert "Polled: 2 vectors" in shown
    assert "5. engram-v2" in shown
    assert "the receiver's signature holds: True" in shown
    assert "7. anchored: engram-relay:1:" in shown
    assert "and its path leads to that root: True" in shown
