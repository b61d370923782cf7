"""A bundler and the gateway behind it on one real socket, with their rules: strict items, one charge an id, an index.

At the x402 route an item is taken when an authorization of play money was settled for it.

The switches are faults that are known of them: an answer lost after taking, payment wanted, a failing service, items
taken and never shown, an index that lags, a gateway that shows other bytes.
"""

import base64
import hashlib
import json
from typing import Any

from engram.archive.ans104 import Item, parse
from engram.archive.errors import MalformedItem
from engram.archive.item_keys import SCHEMES
from engram.payments import x402
from engram.payments.eip712 import recover
from engram.payments.networks import PLAY
from tests.fakes.evm import GENESIS_S, FakeChain
from tests.fakes.responder import Answer, Asked

PAYEE = b"\x77" * 20


class Arweave:
    """Takes items at /v1/tx/ethereum, shows them at /ID, finds them at /graphql, prices at /v1/price/bytes/N."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.charged: list[str] = []
        """An id for each time that it was paid for."""
        self.sent = 0
        """How often an item was sent."""
        self.status = "CONFIRMED"
        self.winc_a_byte = 3
        self.loses_answers = 0
        self.wants_payment = False
        self.fails_with = 0
        self.shows = True
        self.indexes = True
        self.lies = False
        self.sandbox = ""
        """Where the gateway sends whoever asks for an item: a path, or a URL."""
        self.sends_on_and_on = False
        self.chain = FakeChain()
        """Where payments by x402 are settled, on the play network."""
        self.usdc_a_byte = 2
        self.now = GENESIS_S + 2_000
        self.takes_usdc = False
        """Whether items that nobody paid for are refused at the x402 route."""
        self.settles = True
        """Whether it settles at all what it is sent."""
        self.asks_legibly = True
        self.keeps_what_was_paid = True
        """False: an item is lost after its payment was settled."""
        self.payments: list[str] = []
        """Every X-PAYMENT header."""

    async def answer(self, asked: Asked) -> Answer | None:
        if self.fails_with:
            return self.fails_with, {}, b"no"
        if asked.target.startswith("/v1/price/bytes/"):
            return _json(200, {"winc": str(int(asked.target.rpartition("/")[2]) * self.winc_a_byte)})
        if asked.target.startswith("/v1/price/x402/data-item/usdc-"):
            return _json(200, {"usdcAmount": str(int(asked.target.rpartition("/")[2]) * self.usdc_a_byte)})
        if asked.target == "/rpc":
            call = json.loads(asked.body)
            return _json(200, {"result": await self.chain.call(call["method"], call["params"])})
        if asked.target == "/v1/tx/ethereum":
            return self._take(asked)
        if asked.target == "/v1/x402/data-item/signed":
            return self._sell(asked) or self._take(asked)
        if asked.target.startswith("/v1/tx/") and asked.target.endswith("/status"):
            known = asked.target.split("/")[3] in self.items
            return _json(200, {"status": self.status}) if known else (404, {}, b"TX doesn't exist")
        if asked.target == "/graphql":
            return _json(200, self._found(json.loads(asked.body)["variables"]))
        if self.sandbox and (self.sends_on_and_on or not asked.target.startswith(self.sandbox)):
            return 302, {"location": f"{self.sandbox}{asked.target}"}, b""
        item = self.items.get(asked.target.removeprefix(self.sandbox)[1:])
        if item is None or not self.shows:
            return 404, {}, b"Not Found"
        return 200, {}, item.data[::-1] if self.lies else item.data

    def _sell(self, asked: Asked) -> Answer | None:
        """Settle before looking any further, as the real one does; None: it is paid."""
        if not self.takes_usdc:
            return None
        header = asked.headers.get("x-payment")
        if header is None:
            return self._ask(asked, "X-PAYMENT header is required")
        self.payments.append(header)
        payload = x402.decode_payload(header)
        signed = payload.authorization
        price = len(asked.body) * self.usdc_a_byte
        if (payload.version, payload.network, signed.pay_to, signed.value) != (1, PLAY.v1_name, PAYEE, price):
            return self._ask(asked, "other terms")
        if recover(signed, PLAY, payload.signature) != signed.payer or signed.valid_before <= self.now:
            return self._ask(asked, "invalid signature or time")
        if not self.settles:
            return self._ask(asked, "insufficient_funds")
        if signed.nonce.hex() in self.chain.used:
            return self._ask(asked, "nonce already used")
        self.chain.transfer(signed)
        return None if self.keeps_what_was_paid else (500, {}, b"lost")

    def _ask(self, asked: Asked, error: str) -> Answer:
        if not self.asks_legibly:
            return 402, {}, b"Pay."
        offer = {
            "scheme": "exact",
            "network": PLAY.v1_name,
            "maxAmountRequired": str(len(asked.body) * self.usdc_a_byte),
            "resource": "https://upload.example/v1/x402/data-item/signed",
            "payTo": "0x" + PAYEE.hex(),
            "maxTimeoutSeconds": 300,
            "asset": "0x" + PLAY.asset.hex(),
            "extra": {"name": PLAY.asset_name, "version": PLAY.asset_version},
        }
        return _json(402, {"x402Version": 1, "error": error, "accepts": [{**offer, "network": "solana"}, offer]})

    def _take(self, asked: Asked) -> Answer | None:
        self.sent += 1
        if asked.headers.get("content-type") != "application/octet-stream":
            return 400, {}, b"Invalid Content-Type"
        if self.wants_payment:
            return 402, {}, b"Insufficient balance"
        try:
            item = parse(asked.body, SCHEMES)
        except MalformedItem as malformed:
            return 400, {}, str(malformed).encode()
        known = item.id in self.items
        if not known:
            self.items[item.id] = item
            self.charged.append(item.id)
        if self.loses_answers:
            self.loses_answers -= 1
            return None
        return (202, {}, b"") if known else _json(200, {"id": item.id, "winc": str(len(asked.body) * self.winc_a_byte)})

    def _found(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Two a page, so that pages are read."""
        wanted = {each["name"]: each["values"] for each in variables["tags"]}
        found = [
            item
            for item in self.items.values()
            if self.indexes and (variables["owners"] is None or _owner(item) in variables["owners"])
        ]
        found = [item for item in found if all(dict(item.tags).get(name) in values for name, values in wanted.items())]
        start = int(variables["after"] or 0)
        edges = [
            {
                "cursor": str(start + at + 1),
                "node": {
                    "id": item.id,
                    "owner": {"address": _owner(item)},
                    "tags": [{"name": name, "value": value} for name, value in item.tags],
                },
            }
            for at, item in enumerate(found[start : start + 2])
        ]
        page = {"pageInfo": {"hasNextPage": start + 2 < len(found)}, "edges": edges}
        return {"data": {"transactions": page}}


def _owner(item: Item) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(item.owner).digest()).rstrip(b"=").decode()


def _json(status: int, document: object) -> Answer:
    return status, {"content-type": "application/json"}, json.dumps(document).encode()
