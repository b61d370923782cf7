"""`make demo-monitoring`, as an operator runs it."""

import shutil
import subprocess
import sys

import pytest

from tests.e2e.gateway_process import ROOT


@pytest.mark.nightly
@pytest.mark.heavy
@pytest.mark.external
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no prometheus here (Debian: prometheus)")
def test_a_real_prometheus_sees_faults_come_and_go_and_answers_the_dashboards() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/demo_monitoring.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("fires: EngramDown", "clears: EngramDown", "fires: RelayFailing", "clears: RelayFailing"):
        assert words in done.stdout
