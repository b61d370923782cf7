"""`gateway --workers 2`: several gateways on one port; what one loses by a kill, its next start or another has."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.buyer import Buyer, balance
from tests.e2e.gateway_process import FAST, ROOT, GatewayProcess
from tests.e2e.purchases import LITE_HOUR, OPENING_BALANCE, buy, until, until_it_sells
from tests.postgres import cluster, needs_postgresql, rows

pytestmark = needs_postgresql


@pytest.fixture
def address() -> Iterator[str]:
    with cluster() as server:
        yield server.new_ledger()


@pytest.fixture
def parent(address: str, tmp_path: Path) -> Iterator[GatewayProcess]:
    settings = f'{FAST}\n[ledger]\nurl = "{address}"\nlease_s = 60.0\n'
    both = GatewayProcess(tmp_path / "g", settings=settings, arguments=("--port", "0", "--workers", "2"))
    both.start()
    try:
        yield both
    finally:
        if both.is_running():
            both.terminate()
        for node in both.nodes():
            os.kill(node, signal.SIGKILL)


def asked(parent: GatewayProcess, path: str) -> Any:
    with urllib.request.urlopen(f"{parent.ops_url}{path}", timeout=10) as answer:
        return json.load(answer)


def marks(address: str) -> dict[object, object]:
    """The folder of each lease."""
    return {each[0]: each[1] for each in rows(address, "SELECT epoch, folder FROM gateways")}


def owner_of_all(address: str) -> object:
    (row,) = rows(address, "SELECT owner_epoch FROM sessions")
    return row[0]


def pid_of(parent: GatewayProcess, mark: object) -> int:
    """The process of the worker that has this folder."""
    folders = (parent.data_dir / "workers").iterdir()
    (number,) = [int(each.name) for each in folders if str(mark).startswith((each / "folder-mark").read_text())]
    return int(asked(parent, "/status")["workers"][number - 1]["pid"])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_workers_nodes_live_on_without_it(parent: GatewayProcess, address: str, how: signal.Signals) -> None:
    """Killed, its own next start finds them, within its lease; silent for longer, the other one does."""
    buyer = Buyer()
    session = buy(parent, buyer)
    (node,), before = parent.nodes(), owner_of_all(address)
    mark = marks(address)[before]
    pid = pid_of(parent, mark)
    if how is signal.SIGSTOP:
        rows(address, f"UPDATE gateways SET ended_at = clock_timestamp() WHERE epoch = {before} RETURNING epoch")
    os.kill(pid, how)
    until(lambda: owner_of_all(address) != before)
    assert (marks(address)[owner_of_all(address)] == mark) == (how is signal.SIGKILL)
    if how is signal.SIGSTOP:
        os.kill(pid, signal.SIGCONT)
    until(lambda: restarts(parent) == 1)
    until(lambda: asked(parent, "/health")["up"] == 2)
    assert parent.nodes() == [node]
    assert buyer.stop(parent.url, str(session["session_id"])).status == 200
    buyer.wait(parent.url, str(session["session_id"]), "stopped", timeout=60.0)
    assert balance(parent.ready["facilitator_url"], buyer.wallet) == OPENING_BALANCE - LITE_HOUR
    until(lambda: parent.nodes() == [])


def restarts(parent: GatewayProcess) -> int:
    return sum(worker["restarts"] for worker in asked(parent, "/status")["workers"])


def test_the_operator_sees_and_stops_all_of_them(parent: GatewayProcess, address: str) -> None:
    until_it_sells(parent)
    with urllib.request.urlopen(f"{parent.ops_url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    for number in (1, 2):
        assert f'worker="{number}"' in text
    off = subprocess.run(
        [sys.executable, "-c", "from engram.cli import main; main()", "selling", "off", "--data-dir", parent.data_dir],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (off.returncode, off.stderr) == (0, "")
    assert rows(address, "SELECT value FROM meta WHERE key = 'selling'") == [("off",)]
    pids = [worker["pid"] for worker in asked(parent, "/status")["workers"]]
    assert parent.terminate() == 0
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()
    assert rows(address, "SELECT count(*) FROM gateways WHERE ended_at IS NULL") == [(0,)]


def test_workers_end_with_a_parent_that_is_killed_and_the_next_one_starts(parent: GatewayProcess) -> None:
    until_it_sells(parent)
    pids = [worker["pid"] for worker in asked(parent, "/status")["workers"]]
    parent.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    parent.start()
    assert asked(parent, "/health")["up"] == 2


def test_workers_without_a_ledger_that_they_can_share_are_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), "gateway", "--workers", "2", "--data-dir", str(tmp_path)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "ledger.url" in refused.stderr
