"""Our answers to clients of x402's version 1, judged by the schemas of its own TypeScript packages."""

import base64
import json
import subprocess

import pytest

from engram.payments import x402
from engram.payments.networks import BASE, BASE_SEPOLIA, PLAY, Network
from tests.evm import node
from tests.payments import builders

pytestmark = [node.needs_node, pytest.mark.external]


def order(network: Network) -> dict[str, object]:
    """Our 402 and our receipt on a network."""
    settled = builders.payment(network=network.caip2, settled_at=1.0, transaction_hash="0x" + "ab" * 32)
    receipt = json.loads(base64.b64decode(dict(x402.receipt_headers(settled))["X-PAYMENT-RESPONSE"]))
    return {"receipt": receipt, "body": x402.challenge(builders.quote(network=network)).fields}


def test_version_1_reads_our_402_and_our_receipt_and_knows_no_play_money() -> None:
    orders = json.dumps([order(network) for network in (BASE, BASE_SEPOLIA, PLAY)])
    done = subprocess.run(
        ["node", "v1_schemas.mjs"], cwd=node.FOLDER, input=orders, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    base, sepolia, play = json.loads(done.stdout)
    assert (base, sepolia) == ([], [])
    assert len(play) == 4
    assert all(".network: Invalid enum value" in problem and "'engram-play'" in problem for problem in play)
