"""A phone that pays on a real chain: a hotkey, a key with money, and a kept-alive connection."""

import base64
import json
import secrets
import time
from typing import Any, Final

from coincurve import PrivateKey

from engram.hotkeys import Keypair, gateway_scheme
from engram.http.client import HttpClient, Response
from engram.payments import eip712
from engram.payments.keccak import checksummed
from engram.payments.model import Authorization
from engram.payments.networks import NETWORKS

BODY: Final = b'{"tier":"lite","duration_hours":1.0}'


class Wallet:
    """A key; signs what an offer asks for."""

    def __init__(self) -> None:
        self.key = PrivateKey(secrets.token_bytes(32))
        self.payer = eip712.address_of(self.key.public_key)
        self.address = checksummed(self.payer)

    def authorize(self, offer: dict[str, Any], valid_before: int) -> tuple[Authorization, bytes]:
        """Returns an authorization of x402 v2 PaymentRequirements, and its signature."""
        signed = Authorization(
            payer=self.payer,
            pay_to=bytes.fromhex(offer["payTo"][2:]),
            value=int(offer["amount"]),
            valid_after=0,
            valid_before=valid_before,
            nonce=secrets.token_bytes(32),
        )
        return signed, eip712.sign(signed, NETWORKS[offer["network"]], self.key)

    def pay(self, offer: dict[str, Any]) -> str:
        """Returns the PAYMENT-SIGNATURE header that pays an offer, which it repeats word for word."""
        signed, signature = self.authorize(offer, int(time.time()) + int(offer["maxTimeoutSeconds"]))
        authorization = {
            "from": self.address,
            "to": offer["payTo"],
            "value": offer["amount"],
            "validAfter": "0",
            "validBefore": str(signed.valid_before),
            "nonce": "0x" + signed.nonce.hex(),
        }
        payload = {"signature": "0x" + signature.hex(), "authorization": authorization}
        document = {"x402Version": 2, "accepted": offer, "payload": payload}
        return base64.b64encode(json.dumps(document).encode()).decode()


class Phone:
    """Buys the same thing again and again at `url`."""

    def __init__(self, url: str) -> None:
        self.wallet = Wallet()
        self.taken_ms: list[float] = []
        self._url = url
        self._http = HttpClient()
        self._keypair = Keypair.generate()
        self.offer: dict[str, Any] = {}

    async def ask_price(self) -> None:
        asked = await self._post({})
        assert asked.status == 402, asked.content
        self.offer = json.loads(base64.b64decode(asked.headers["payment-required"]))["accepts"][0]

    async def buy(self) -> None:
        """One paid POST, timed from when it is sent to its 202; signing the payment is not counted."""
        bought = await self.try_to_buy()
        assert bought.status == 202, bought.content

    async def try_to_buy(self) -> Response:
        """As `buy`, whatever the answer is."""
        payment = self.wallet.pay(self.offer)
        began = time.perf_counter()
        answer = await self._post({"PAYMENT-SIGNATURE": payment})
        self.taken_ms.append((time.perf_counter() - began) * 1000)
        return answer

    async def _post(self, extra: dict[str, str]) -> Response:
        now_ms = time.time_ns() // 1_000_000
        headers = gateway_scheme.sign_request(self._keypair, "POST", "/sessions", now_ms, BODY, version=2)
        return await self._http.request(
            "POST",
            f"{self._url}/sessions",
            content=BODY,
            headers={**headers, "Content-Type": "application/json", **extra},
            total_s=30.0,
        )
