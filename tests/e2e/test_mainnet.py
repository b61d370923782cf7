"""The profile mainnet as an operator starts it: nodes on Akash, real money, nothing of it playing on this machine."""

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from engram.provisioning.akash.account import Signer
from tests.doubles.akash.process import DoubleProcess
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.test_akash import CHAIN_ID, KEY

pytestmark = pytest.mark.heavy


def settings(double: DoubleProcess, key_file: Path) -> str:
    """What docs/akash.md and docs/configuration.md demand, and the double as the network."""
    key_file.touch(mode=0o600)
    key_file.write_text(KEY.hex())
    return f"""
[log]
format = "json"
[payments]
recipient = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
facilitator_url = "https://127.0.0.1:9/facilitator"
[gateway]
public_url = "https://gateway.example"
[chain]
endpoints = ["http://127.0.0.1:9"]
[provisioning]
miner_image = "registry.example/engram@sha256:{"0" * 64}"
[akash]
owner_address = "{Signer(KEY).address}"
key_file = "{key_file}"
endpoints = {json.dumps(double.endpoints)}
chain_id = "{CHAIN_ID}"
allow_private_providers = true
"""


def get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def metric(url: str, name: str) -> float | None:
    with urllib.request.urlopen(url + "/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), None)


def test_a_gateway_of_the_profile_mainnet_starts_and_offers_nodes_on_akash(tmp_path: Path) -> None:
    """It looks at the chain, knows its balances, names its places, and quotes nothing that nobody could settle."""
    funded = ("--fund", Signer(KEY).address, "--chain-id", CHAIN_ID, "--block-s", "0.2", "--nodes", "3")
    with DoubleProcess(*funded) as double:
        wanted = settings(double, tmp_path / "akash.key")
        with GatewayProcess(tmp_path / "data", settings=wanted, profile="mainnet") as gateway:
            gateway.start()
            deadline = time.monotonic() + 30.0
            while metric(gateway.ops_url, 'engram_akash_balance{denom="akt"}') is None:
                assert time.monotonic() < deadline, gateway.log()
                time.sleep(0.1)
            assert metric(gateway.ops_url, 'engram_akash_balance{denom="act"}') == 1_000.0
            status, nodes = get(gateway.url + "/nodes")
            assert status == 200
            (akash,) = nodes["backends"]
            assert (akash["name"], akash["answers"]) == ("akash", True), nodes
            assert akash["places"] > 0
            status, ready = get(gateway.url + "/ready")
            assert (status, ready["ready"]) == (503, False)
            assert "hotkey" in ready["checks"]["sales"] or "facilitator" in ready["checks"]["sales"], ready
            assert sum(double.state()["nodes"][0]["requests"].values()) > 0
            assert gateway.terminate() == 0
        assert KEY.hex() not in gateway.log()
