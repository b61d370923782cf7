"""The token that stands in for USDC: what its byte code was made of, and that it keeps to EIP-3009."""

import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evm import node
from tests.evm.chain import COMPILED, NETWORK, TOKEN, USED, Chain, Reverted
from tests.evm.wallet import EvmWallet

pytestmark = [node.needs_node, pytest.mark.xdist_group("evm")]
RECIPIENT = "0x" + "11" * 20


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with Chain(tmp_path_factory.mktemp("anvil") / "anvil.log") as running:
        yield running


def signed(**overrides: object) -> EvmWallet:
    """A wallet that has signed a payment of 10 to RECIPIENT."""
    wallet = EvmWallet()
    wallet.overrides = {"to": RECIPIENT, "value": "10", "validBefore": str(int(time.time()) + 3600), **overrides}
    wallet.sign(NETWORK.caip2, TOKEN, secrets.token_bytes(32))
    return wallet


def test_the_byte_code_is_that_of_the_source() -> None:
    source = COMPILED.with_suffix(".sol")
    done = subprocess.run(
        ["node", "compile.mjs", str(source), "TestUSD"], cwd=node.FOLDER, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(COMPILED.read_text())
    assert str(Path(COMPILED).name) == "TestUSD.json"


def test_an_authorization_moves_money_once_and_tells_of_it(chain: Chain) -> None:
    wallet = signed()
    chain.mint(wallet.address, 25)
    chain.submit(wallet.authorization, wallet.signature)
    with pytest.raises(Reverted):
        chain.submit(wallet.authorization, wallet.signature)
    assert (chain.balance(wallet.address), chain.balance(RECIPIENT)) == (15, 10)
    assert chain.transfers(wallet.address, RECIPIENT) == [10]
    logs = chain.rpc("eth_getLogs", {"address": TOKEN, "fromBlock": "0x0", "toBlock": "latest", "topics": [USED]})
    assert [log["topics"][2] for log in logs] == [wallet.authorization["nonce"]]


@pytest.mark.parametrize(
    "overrides",
    [
        {"validBefore": "1"},
        {"validAfter": str(2**40)},
        {"value": "26"},
        {"to": "0x" + "00" * 20},
        {"from": "0x" + "22" * 20},
    ],
)
def test_an_authorization_that_does_not_hold_moves_nothing(chain: Chain, overrides: dict[str, object]) -> None:
    wallet = signed(**overrides)
    chain.mint(wallet.address, 25)
    with pytest.raises(Reverted):
        chain.submit(wallet.authorization, wallet.signature)
    assert chain.balance(wallet.address) == 25


def test_a_cancelled_authorization_counts_as_used_but_moves_nothing(chain: Chain) -> None:
    wallet = signed()
    chain.mint(wallet.address, 25)
    chain.cancel(wallet.secret, wallet.nonce)
    with pytest.raises(Reverted):
        chain.submit(wallet.authorization, wallet.signature)
    assert chain.is_used(wallet.address, wallet.nonce)
    assert chain.balance(wallet.address) == 25
