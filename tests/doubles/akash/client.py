"""Speaks to a double over HTTP, as an owner's program does."""

import base64
import ssl
from typing import Any

import httpx2

from tests.doubles.akash import manifests
from tests.doubles.akash.account import Account
from tests.doubles.akash.double import Double
from tests.doubles.akash.messages import Message


class Client:
    """Speaks to a double as an owner's program does."""

    def __init__(self, double: Double, owner: Account, http: httpx2.AsyncClient) -> None:
        self.double = double
        self.owner = owner
        self.http = http
        self.url = double.endpoints[0]
        self._nanos = 0

    async def get(self, path: str, query: dict[str, str] | None = None, node: int = 0) -> httpx2.Response:
        return await self.http.get(self.double.endpoints[node] + path, params=query)

    async def broadcast(self, raw: bytes, node: int = 0) -> dict[str, Any]:
        sent = {"tx_bytes": base64.b64encode(raw).decode(), "mode": "BROADCAST_MODE_SYNC"}
        answer = await self.http.post(self.double.endpoints[node] + "/cosmos/tx/v1beta1/txs", json=sent)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["tx_response"]
        return found

    def unordered(self, *messages: Message, **given: Any) -> bytes:
        number = self.double.chain.state.accounts.get(self.owner.address)
        assert number is not None
        self._nanos += 1
        timeout = round((self.double.chain.state.time_s + 60) * 10**9) + self._nanos
        return self.owner.sign(*messages, number=number.number, timeout_ns=timeout, **given)

    async def done(self, *messages: Message, **given: Any) -> dict[str, Any]:
        """Send a transaction, make blocks until it is indexed, and return its answer."""
        sent = await self.broadcast(self.unordered(*messages, **given))
        assert sent["code"] == 0, sent
        self.double.make_blocks(2, 6.0)
        answer = await self.get(f"/cosmos/tx/v1beta1/txs/{sent['txhash']}")
        found: dict[str, Any] = answer.json()["tx_response"]
        return found

    def bearer(self, **leases: Any) -> dict[str, str]:
        claims = self.owner.claims(self.double.now(), leases or None)
        return {"Authorization": f"Bearer {self.owner.token(claims)}"}


async def pinned(client: Client, provider: str) -> httpx2.AsyncClient:
    """A client that trusts the certificate on the chain and no other."""
    found = await client.get("/akash/cert/v1/certificates/list", {"filter.owner": provider, "filter.state": "valid"})
    (certificate,) = found.json()["certificates"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=base64.b64decode(certificate["certificate"]["cert"]).decode())
    return httpx2.AsyncClient(verify=context, timeout=10)


async def leased(client: Client, dseq: int, document: list[dict[str, Any]]) -> tuple[str, str]:
    """Create and lease; return the provider's address and URL."""
    assert (await client.done(client.owner.create(dseq, manifests.version(document))))["code"] == 0
    client.double.make_blocks(2, 6.0)
    found = await client.get(
        "/akash/market/v1beta5/bids/list",
        {"filters.owner": client.owner.address, "filters.dseq": str(dseq), "filters.state": "open"},
    )
    bids = found.json()["bids"]
    assert len(bids) == 3
    best = min(bids, key=lambda each: float(each["bid"]["price"]["amount"]))
    provider = best["bid"]["id"]["provider"]
    assert (await client.done(client.owner.lease(dseq, provider)))["code"] == 0
    url = (await client.get(f"/akash/provider/v1beta4/providers/{provider}")).json()["provider"]["host_uri"]
    return provider, url
