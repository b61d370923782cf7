"""A chain of its own: anvil in a process, with a test token standing at the address of the real one.

The chain has the id of Base Sepolia, so that everything that is written for that network works on it unchanged.
"""

import http.client
import json
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Self

from eth_abi.abi import encode
from eth_account import Account

from engram.payments.keccak import keccak256
from engram.payments.networks import BASE_SEPOLIA, Network
from tests.evm.node import ANVIL

NETWORK: Network = BASE_SEPOLIA
TOKEN = "0x" + NETWORK.asset.hex()
COMPILED = Path(__file__).resolve().parents[1] / "data" / "evm" / "TestUSD.json"
START_TIMEOUT_S = 20.0
RECEIPT_TIMEOUT_S = 10.0

TRANSFER = "0x" + keccak256(b"Transfer(address,address,uint256)").hex()
USED = "0x" + keccak256(b"AuthorizationUsed(address,bytes32)").hex()
AUTHORIZATION_TYPES = {
    "TransferWithAuthorization": [
        {"name": "from", "type": "address"},
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "validAfter", "type": "uint256"},
        {"name": "validBefore", "type": "uint256"},
        {"name": "nonce", "type": "bytes32"},
    ]
}
CANCEL_TYPES = {
    "CancelAuthorization": [{"name": "authorizer", "type": "address"}, {"name": "nonce", "type": "bytes32"}]
}


class Reverted(Exception):
    """The chain took the transaction and undid it, or refused it."""


class Chain:
    """anvil: a block for each transaction, until `automine(False)`."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._sending = threading.Lock()
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.funded: str = ""
        """An account of anvil's that owns gas and signs inside anvil."""

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(ANVIL), "--port", str(self.port), "--chain-id", str(NETWORK.chain_id), "--quiet"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.funded = self.rpc("eth_accounts")[0]
                break
            except OSError:
                assert time.monotonic() < deadline, self._log.read_text()
                assert self._process.poll() is None, self._log.read_text()
                time.sleep(0.02)
        self._put_token()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def rpc(self, method: str, *params: object) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
            connection.request("POST", "/", body, {"content-type": "application/json"})
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if "error" in answer:
            raise Reverted(answer["error"].get("message", ""))
        return answer["result"]

    # The token.

    def mint(self, address: str, amount: int) -> None:
        self._send("mint(address,uint256)", ("address", "uint256"), (address, amount))

    def balance(self, address: str) -> int:
        data = _call("balanceOf(address)", ("address",), (address,))
        return int(self.rpc("eth_call", {"to": TOKEN, "data": data}, "latest"), 16)

    def is_used(self, payer: str, nonce: bytes) -> bool:
        """The token's own word: used or cancelled, it does not tell which."""
        data = _call("authorizationState(address,bytes32)", ("address", "bytes32"), (payer, nonce))
        return int(self.rpc("eth_call", {"to": TOKEN, "data": data}, "latest"), 16) == 1

    def transfers(self, payer: str, recipient: str) -> list[int]:
        """Amounts of every transfer between the two, oldest first."""
        topics = [TRANSFER, _topic(payer), _topic(recipient)]
        logs = self.rpc("eth_getLogs", {"address": TOKEN, "fromBlock": "0x0", "toBlock": "latest", "topics": topics})
        return [int(log["data"], 16) for log in logs]

    def submit(self, authorization: dict[str, Any], signature: str) -> None:
        """Use an authorization as a stranger would who got hold of it."""
        v, r, s = _parts(signature)
        kinds = ("address", "address", "uint256", "uint256", "uint256", "bytes32", "uint8", "bytes32", "bytes32")
        values = (
            authorization["from"],
            authorization["to"],
            int(authorization["value"]),
            int(authorization["validAfter"]),
            int(authorization["validBefore"]),
            bytes.fromhex(authorization["nonce"][2:]),
            v,
            r,
            s,
        )
        self._send(f"transferWithAuthorization({','.join(kinds)})", kinds, values)

    def cancel(self, secret: bytes, nonce: bytes) -> None:
        """Cancel an authorization in its payer's name."""
        payer = Account.from_key(secret).address
        signed = Account.sign_typed_data(secret, domain(), CANCEL_TYPES, {"authorizer": payer, "nonce": nonce})
        v, r, s = _parts("0x" + signed.signature.hex())
        kinds = ("address", "bytes32", "uint8", "bytes32", "bytes32")
        self._send(f"cancelAuthorization({','.join(kinds)})", kinds, (payer, nonce, v, r, s))

    # Time and blocks.

    def now(self) -> int:
        return int(self.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def height(self) -> int:
        return int(self.rpc("eth_blockNumber"), 16)

    def mine(self, blocks: int = 1) -> None:
        self.rpc("anvil_mine", hex(blocks))

    def tick(self) -> None:
        """A block, when this second has none: no chain that is sold on makes more."""
        if self.now() < int(time.time()):
            self.mine()

    def reorganise(self, depth: int) -> None:
        """Replace the newest blocks by empty ones; their transactions are gone."""
        self.rpc("anvil_reorg", depth, [])

    def automine(self, on: bool) -> None:
        self.rpc("evm_setAutomine", on)

    def pending(self, sender: str) -> int:
        """Transactions of one sender that wait for a block."""
        waiting = self.rpc("txpool_content")["pending"]
        return sum(len(each) for address, each in waiting.items() if address.lower() == sender.lower())

    def _put_token(self) -> None:
        self.rpc("anvil_setCode", TOKEN, json.loads(COMPILED.read_text())["runtime"])
        for slot, text in enumerate((NETWORK.asset_name, NETWORK.asset_version)):
            raw = text.encode()
            assert len(raw) < 32, "a longer string is stored otherwise"
            word = raw.ljust(31, b"\0") + bytes([2 * len(raw)])
            self.rpc("anvil_setStorageAt", TOKEN, "0x" + slot.to_bytes(32, "big").hex(), "0x" + word.hex())
        self.mine()

    def _send(self, signature: str, kinds: tuple[str, ...], values: tuple[object, ...]) -> None:
        order = {"from": self.funded, "to": TOKEN, "data": _call(signature, kinds, values), "gas": hex(500_000)}
        with self._sending:
            transaction = self.rpc("eth_sendTransaction", order)
        deadline = time.monotonic() + RECEIPT_TIMEOUT_S
        while (receipt := self.rpc("eth_getTransactionReceipt", transaction)) is None:
            assert time.monotonic() < deadline, "no block was made"
            time.sleep(0.002)
        if receipt["status"] != "0x1":
            raise Reverted(signature)


def domain() -> dict[str, object]:
    """The EIP-712 domain of the token."""
    return {
        "name": NETWORK.asset_name,
        "version": NETWORK.asset_version,
        "chainId": NETWORK.chain_id,
        "verifyingContract": TOKEN,
    }


def _call(signature: str, kinds: tuple[str, ...], values: tuple[object, ...]) -> str:
    return "0x" + (keccak256(signature.encode())[:4] + encode(kinds, values)).hex()


def _topic(address: str) -> str:
    return "0x" + address[2:].lower().rjust(64, "0")


def _parts(signature: str) -> tuple[int, bytes, bytes]:
    raw = bytes.fromhex(signature[2:])
    return raw[64], raw[:32], raw[32:64]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
