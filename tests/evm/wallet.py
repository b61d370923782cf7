"""Buyers with real balances: their own wallet with every field under the test's control, and x402's own clients."""

import base64
import json
import secrets
import subprocess
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import trio
from eth_account import Account

from engram.hotkeys import Keypair, gateway_scheme
from tests.e2e.buyer import Answer, Buyer
from tests.evm import node
from tests.evm.chain import AUTHORIZATION_TYPES, Chain, domain
from tests.fakes.official_x402 import paying_client

NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
FUNDS = 1_000_000
"""What a buyer owns at first, in atomic units: one dollar."""


class EvmWallet:
    """Signs EIP-3009 authorizations with eth_account and keeps the last one."""

    def __init__(self) -> None:
        self.secret = secrets.token_bytes(32)
        self.address: str = Account.from_key(self.secret).address
        self.authorization: dict[str, Any] = {}
        self.signature = ""
        self.overrides: dict[str, object] = {}
        """Fields of the authorization that differ from what the offer asks for."""
        self.offer_overrides: dict[str, object] = {}
        """Fields of `accepted` that differ from the offer."""

    @property
    def nonce(self) -> bytes:
        return bytes.fromhex(self.authorization["nonce"][2:])

    def pay(self, payment_required: str, now: float, nonce: bytes) -> str:
        """Returns the PAYMENT-SIGNATURE header that pays the first offer."""
        required = json.loads(base64.b64decode(payment_required))
        offer = {**required["accepts"][0], **self.offer_overrides}
        asked = {
            "to": offer["payTo"],
            "value": offer["amount"],
            "validBefore": str(int(now) + offer["maxTimeoutSeconds"]),
        }
        self.sign(offer["network"], offer["asset"], nonce, asked)
        payload = {"signature": self.signature, "authorization": self.authorization}
        document = {"x402Version": 2, "accepted": offer, "payload": payload}
        return base64.b64encode(json.dumps(document).encode()).decode()

    def sign(self, network: str, asset: str, nonce: bytes, asked: Mapping[str, object] = NOTHING) -> None:
        """Sign an authorization for a token on a network: what is asked for, but for `overrides`."""
        fixed = {"from": self.address, "validAfter": "0", "nonce": "0x" + nonce.hex()}
        self.authorization = {**fixed, **asked, **self.overrides}
        chain_id = int(network.removeprefix("eip155:"))
        at = {**domain(), "verifyingContract": asset, "chainId": chain_id}
        fields = self.authorization.items()
        message = {name: int(value) if name.startswith("val") else value for name, value in fields}
        signed = Account.sign_typed_data(self.secret, at, AUTHORIZATION_TYPES, message)
        self.signature = "0x" + signed.signature.hex()


class EvmBuyer(Buyer):
    """A phone that pays on the chain."""

    def __init__(self, chain: Chain, funds: int = FUNDS) -> None:
        super().__init__()
        self.chain = chain
        self.evm = EvmWallet()
        if funds:
            chain.mint(self.evm.address, funds)

    def quote(self, url: str, **order: object) -> Answer:
        self.order = {**self.order, **order}
        answer = self.post(url, "/sessions")
        assert answer.status == 402, answer
        header = self.evm.pay(answer.headers["payment-required"], time.time(), secrets.token_bytes(32))
        self.payment = {"PAYMENT-SIGNATURE": header}
        return answer

    @property
    def balance(self) -> int:
        return self.chain.balance(self.evm.address)

    def payment_of(self, url: str, payment_id: str) -> dict[str, Any]:
        answer = self.send(url, "GET", f"/payments/{payment_id}", b"")
        assert answer.status == 200, answer
        return answer.body


class OfficialBuyer(EvmBuyer):
    """Leaves the paying to a client of others; the hotkey's signature of the request is the same both times."""

    def buy_with_python(self, url: str) -> Answer:
        """x402's Python client, on trio."""
        body, headers = self._signed(url)

        async def send() -> Answer:
            async with paying_client(self.evm.secret) as client:
                answer = await client.post(f"{url}/sessions", content=body, headers=headers, timeout=15)
                return Answer(answer.status_code, dict(answer.headers), answer.json())

        return trio.run(send)

    def buy_with_typescript(self, url: str) -> Answer:
        """x402's TypeScript client, in Node."""
        body, headers = self._signed(url)
        order = {
            "url": f"{url}/sessions",
            "method": "POST",
            "headers": headers,
            "body": body.decode(),
            "secret": "0x" + self.evm.secret.hex(),
        }
        done = subprocess.run(
            ["node", "buyer.mjs"], cwd=node.FOLDER, input=json.dumps(order), capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        return Answer(answer["status"], answer["headers"], answer["body"])

    def _signed(self, url: str) -> tuple[bytes, dict[str, str]]:
        body = json.dumps(self.order).encode()
        keypair: Keypair = self.keypair
        now_ms = int(time.time() * 1000)
        signed = gateway_scheme.sign_request(keypair, "POST", "/sessions", now_ms, body, version=2)
        return body, {**signed, "content-type": "application/json"}
