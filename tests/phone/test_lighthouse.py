"""What Lighthouse says of the app: as fast as promised, and nothing to find fault with."""

import statistics
from pathlib import Path

import pytest

from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.phone.browser import needs_app
from tests.phone.lighthouse import PROGRAM, scores

pytestmark = [
    needs_app,
    pytest.mark.skipif(not PROGRAM.exists(), reason="needs Lighthouse: scripts/setup-lighthouse"),
    pytest.mark.heavy,
    pytest.mark.nightly,
    pytest.mark.external,
    pytest.mark.xdist_group("engine"),
]
RUNS = 5
LEAST_PERFORMANCE = 95


def test_lighthouse_finds_the_app_fast_and_without_fault(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data", settings=FAST) as gateway:
        runs = [scores(f"{gateway.start().url}/app/") for _ in range(RUNS)]
    for name in ("accessibility", "best-practices", "seo"):
        assert {run[name] for run in runs} == {100.0}, name
    performance = [run["performance"] for run in runs]
    assert statistics.median(performance) >= LEAST_PERFORMANCE, performance
