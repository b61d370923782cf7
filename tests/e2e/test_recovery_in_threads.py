"""A gateway that is killed with its nodes starts again, also when the threads that look after them take turns at the
worst of times."""

import os
import signal
import time
from pathlib import Path

import pytest

from engram.provisioning import processes
from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.provisioning.test_local import no_processes_left
from tests.sampling import NIGHTLY

NODES = 5
KILLS = 5
BLOCKS = 40 if NIGHTLY else 1
PROGRAM = Path(__file__).with_name("hurried_gateway.py")
SETTINGS = FAST + f"[provisioning]\nplaces = {NODES}\nhealth_interval_s = 0.05\n"


def until_moved(gateway: GatewayProcess, moved: Path, count: int) -> None:
    """Wait until `count` nodes in all were told when they end; fails as soon as the gateway is no more."""
    deadline = time.monotonic() + 30
    while not moved.exists() or len(moved.read_bytes().split()) < count:
        assert gateway.is_running(), f"the gateway died after {moved.read_bytes().split()}:\n{gateway.log()}"
        assert time.monotonic() < deadline, gateway.log()
        time.sleep(0.02)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_gateway_killed_with_its_nodes_starts_each_time(tmp_path: Path, block: int) -> None:
    moved, data = tmp_path / "moved", tmp_path / "data"
    environ = {"ENGRAM_TEST_MOVED": str(moved), "ENGRAM_TEST_MEET": str(NODES)}
    buyers = [Buyer() for _ in range(NODES)]
    with (
        no_processes_left(tmp_path),
        GatewayProcess(data, settings=SETTINGS, environ=environ, program=PROGRAM) as gateway,
    ):
        gateway.start()
        sessions = []
        for buyer in buyers:
            buyer.quote(gateway.url)
            sessions.append(str(buyer.pay(gateway.url).body["session_id"]))
        until_moved(gateway, moved, NODES)
        for kill in range(1, KILLS + 1):
            gateway.kill()
            for pid, _ in processes.session_leaders_naming(str(data)):
                os.killpg(pid, signal.SIGKILL)
            gateway.start()
            until_moved(gateway, moved, NODES * (kill + 1))
        for buyer, session in zip(buyers, sessions, strict=True):
            buyer.wait(gateway.url, session, "active")
        assert len(processes.session_leaders_naming(str(data))) == NODES
        assert gateway.terminate() == 0
