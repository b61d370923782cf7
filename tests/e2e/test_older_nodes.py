"""A gateway that is upgraded while its nodes run: those of the version before serve on, and give way to newer ones."""

import json
import os
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from engram.nodes.agreement import DRIVEN, INTRODUCED_SINCE, PROTOCOL
from engram.sdk import NodeClient
from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import ROOT, GatewayProcess
from tests.e2e.purchases import buy, stop, until

pytestmark = pytest.mark.heavy

TEXT = "A physician prescribed tablets to bring the child's fever down."


def health_at(endpoint: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{endpoint}/health", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def node_of(gateway: GatewayProcess) -> int:
    """The process of the one node, by the file that its backend left."""
    (file,) = gateway.data_dir.glob("nodes/*/node.json")
    return int(json.loads(file.read_text())["process"]["pid"])


def test_the_last_two_versions_are_driven() -> None:
    assert {PROTOCOL - 1, PROTOCOL} == DRIVEN
    assert INTRODUCED_SINCE == 2  # a node of version 1 is what older_node.py is


def test_a_node_of_the_version_before_serves_on_and_its_memory_goes_to_a_newer_one(tmp_path: Path) -> None:
    buyer = Buyer()
    older = ROOT / "tests" / "e2e" / "older_gateway.py"
    with GatewayProcess(tmp_path / "data", program=older) as gateway:
        gateway.start()
        session = buy(gateway, buyer)
        process = node_of(gateway)
        gateway.kill()
    with GatewayProcess(tmp_path / "data") as gateway:
        try:
            assert "protocol" not in health_at(session["node_endpoint"])
            with NodeClient(session["node_endpoint"], buyer.keypair) as node:
                node.ingest_text(TEXT)
            gateway.start()
            session_id = str(session["session_id"])
            until(lambda: bool(buyer.get(gateway.url, session_id).body["stats"].get("vectors")))
            assert buyer.get(gateway.url, session_id).body["status"] == "active"
            assert node_of(gateway) == process
            with NodeClient(session["node_endpoint"], buyer.keypair) as node:
                assert node.query(TEXT, top_k=1)[0].text == TEXT
        finally:
            os.killpg(process, signal.SIGKILL)
        until(lambda: node_of(gateway) != process)
        until(lambda: buyer.get(gateway.url, session_id).body["status"] == "active")
        assert health_at(session["node_endpoint"])["protocol"] == PROTOCOL
        with NodeClient(session["node_endpoint"], buyer.keypair) as node:
            assert node.query(TEXT, top_k=1)[0].text == TEXT
        stop(gateway, buyer, session_id)
        assert gateway.nodes() == []
