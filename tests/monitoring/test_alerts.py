"""Every alert in a real Prometheus: what promtool's tests say of it happens with what is scraped, too."""

import re
import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.gateway_process import ROOT
from tests.monitoring.replay import cases_of, play

RULES: Final = ROOT / "deploy" / "prometheus" / "engram.rules.yml"
TESTS: Final = RULES.with_name("engram.test.yml")
needs_prometheus = [
    pytest.mark.heavy,
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no prometheus here (Debian: prometheus)"),
]


def test_each_alert_has_a_case() -> None:
    assert sorted(case.alert for case in cases_of(TESTS)) == sorted(re.findall(r"- alert: (\w+)", RULES.read_text()))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(("", ""), id="as it is", marks=needs_prometheus),
        pytest.param(
            ("engram_worker_connected == 0", "engram_worker_linked == 0"),
            id="a metric misnamed",
            marks=[*needs_prometheus, pytest.mark.nightly],
        ),
    ],
)
def test_each_alert_is_silent_fires_and_clears_with_what_a_prometheus_scrapes(
    tmp_path: Path, change: tuple[str, str]
) -> None:
    rules = tmp_path / "engram.rules.yml"
    rules.write_text(RULES.read_text().replace(*change))
    played = play(rules, TESTS, tmp_path)
    assert played == (set(), {"WorkerDisconnected"} if change[0] else set(), set())
