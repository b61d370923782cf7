"""The alert rules: what they read is exported, where they point is written, and each is shown to fire and clear."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from config.keys import KEYS
from config.model import Settings
from engram.relay.rounds import LOST
from engram.telemetry.table import BY_NAME as BY_METRIC
from tests.monitoring.promql import faults

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "deploy" / "prometheus"
RUNBOOK: Final = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
RULES: Final[list[dict[str, Any]]] = [
    rule
    for group in yaml.safe_load((FOLDER / "engram.rules.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
TESTS: Final = (FOLDER / "engram.test.yml").read_text(encoding="utf-8")
BY_NAME: Final = {rule["alert"]: rule for rule in RULES}
RESTART_S: Final = 60
"""A restart, with the first scrapes after it, takes no longer."""
UNITS: Final = {"s": 1, "m": 60, "h": 3_600}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_reads_what_is_exported_and_says_what_to_do(rule: dict[str, Any]) -> None:
    assert faults(rule["expr"]) == []
    assert rule["labels"]["severity"] in ("page", "ticket")
    number, unit = re.fullmatch(r"(\d+)([smh])", rule["for"]).groups()  # type: ignore[union-attr]
    assert int(number) * UNITS[unit] >= RESTART_S, "a restart would fire it"
    assert rule["annotations"]["summary"]
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert page == "docs/runbook.md"
    assert anchor in {heading.lower() for heading in re.findall(r"^### (\w+)$", RUNBOOK, re.MULTILINE)}
    section = RUNBOOK.partition(f"### {rule['alert']}\n")[2].partition("\n### ")[0]
    assert section.split()[0] == f"{rule['labels']['severity']}."
    assert f'alertname=\\"{rule["alert"]}\\"' in TESTS, "promtool must show it firing and clearing"


def test_every_section_of_the_runbook_is_an_alert() -> None:
    assert re.findall(r"^### (\w+)$", RUNBOOK, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_every_setting_that_the_runbook_names_is_one() -> None:
    sections = {key.partition(".")[0] for key in KEYS if "." in key}
    named = {name for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", RUNBOOK) if name.partition(".")[0] in sections}
    assert named
    assert sorted(named - set(KEYS)) == []


def test_low_balances_are_those_that_the_settings_alarm_at() -> None:
    akash = Settings().akash
    assert BY_NAME["AkashActLow"]["expr"].endswith(f"< {akash.alarm_act:g}")
    assert BY_NAME["AkashAktLow"]["expr"].endswith(f"< {akash.alarm_akt:g}")


def test_only_payloads_that_are_lost_wake_someone() -> None:
    reasons = {values[0] for values in BY_METRIC["engram_relay_not_queued"].known}
    pages = re.search(r'reason!~"([^"]+)"', BY_NAME["RelayRoundsDropped"]["expr"])
    tickets = re.search(r'reason=~"([^"]+)"', BY_NAME["RelayQueueFull"]["expr"])
    assert pages is not None
    assert tickets is not None
    assert reasons - set(pages[1].split("|")) == set(LOST)
    assert reasons - set(tickets[1].split("|")) == set(LOST)


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("engram_relay_failures_in_row >= 3", "is exported by nobody"),
        ('engram_relay_entries{status="abandoned"} > 0', "has no label status"),
        ('engram_relay_entries{state="abandonned"} > 0', "has no state"),
        ('engram_refunds{state=~"due|paid"} > 0', "has no state 'paid'"),
        ("sum by (backend) (engram_relay_entries) > 0", "backend is a label of none"),
        ("rate(engram_polls[5m]) > 0", "is exported by nobody"),
        ("vector(1) > 0", "names no metric"),
        ('increase(engram_launches_total{outcome!="healthyy"}[30m]) > 3', "has no outcome 'healthyy'"),
        ('engram_http_requests_total{status=~"X.."} > 0', "has no status 'X..'"),
        ('rate(engram_loop_lag_seconds_bucket{le="7"}[5m]) > 0', "has no le '7'"),
        ('engram_relay_sends_total{outcome="okay"} > 0', "has no outcome 'okay'"),
        ('engram_nodes{backend="akesh"} > 0', "has no backend 'akesh'"),
        ("engram_nodes > on (nothing) engram_nodes_orphaned", "nothing is a label of none"),
        ("sum without (nonsense) (engram_nodes) > 0", "nonsense is a label of none"),
    ],
)
def test_what_nobody_exports_is_found(expression: str, fault: str) -> None:
    assert any(fault in each for each in faults(expression))


@pytest.mark.heavy
@pytest.mark.external
@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool here (Debian: prometheus)")
def test_promtool_sees_each_alert_fire_and_clear() -> None:
    for arguments in (["check", "rules", "engram.rules.yml"], ["test", "rules", "engram.test.yml"]):
        found = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr
