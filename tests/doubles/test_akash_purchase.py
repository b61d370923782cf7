"""A whole lease on the double, by its HTTP surfaces alone: created, bid for, leased, served, closed."""

import base64
import json
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import trio

from tests.doubles.akash import manifests
from tests.doubles.akash.account import Account, manifest
from tests.doubles.akash.double import Double, Options, running
from tests.doubles.akash.messages import Message
from tests.doubles.akash.workloads import TOKEN_VARIABLE


class Client:
    """Speaks to a double as an owner's program does."""

    def __init__(self, double: Double, owner: Account, http: httpx2.AsyncClient) -> None:
        self.double = double
        self.owner = owner
        self.http = http
        self.url = double.endpoints[0]
        self._nanos = 0

    async def get(self, path: str, node: int = 0, **query: str) -> httpx2.Response:
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


@pytest.fixture
async def owner() -> Account:
    return Account()


@pytest.fixture
async def client(owner: Account) -> AsyncIterator[Client]:
    options = Options(block_s=0, funded=(owner.address,), watch_s=0.05)
    async with running(options, now=lambda: 1_790_000_000.0) as double, httpx2.AsyncClient(timeout=10) as http:
        yield Client(double, owner, http)


async def pinned(client: Client, provider: str) -> httpx2.AsyncClient:
    """A client that trusts the certificate on the chain and no other."""
    found = await client.get("/akash/cert/v1/certificates/list", **{"filter.owner": provider, "filter.state": "valid"})
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
        **{"filters.owner": client.owner.address, "filters.dseq": str(dseq), "filters.state": "open"},
    )
    bids = found.json()["bids"]
    assert len(bids) == 3
    best = min(bids, key=lambda each: float(each["bid"]["price"]["amount"]))
    provider = best["bid"]["id"]["provider"]
    assert (await client.done(client.owner.lease(dseq, provider)))["code"] == 0
    url = (await client.get(f"/akash/provider/v1beta4/providers/{provider}")).json()["provider"]["host_uri"]
    return provider, url


async def test_a_node_is_bought_served_and_given_back(client: Client) -> None:
    document = manifest({TOKEN_VARIABLE: "abc-1", "ENGRAM_QUERY": "a<b&c>d"})
    provider, url = await leased(client, 7, document)
    async with await pinned(client, provider) as gateway:
        put = await gateway.put(f"{url}/deployment/7/manifest", json=document, headers=client.bearer())
        assert (put.status_code, put.content) == (200, b"")
        with trio.fail_after(5):
            while True:
                status = await gateway.get(f"{url}/lease/7/1/1/status", headers=client.bearer())
                if status.json()["services"]["miner"]["available"] == 1:
                    break
                await trio.sleep(0.01)
    ports = status.json()["forwarded_ports"]["miner"]
    health = await client.http.get(f"http://{ports[0]['host']}:{ports[0]['externalPort']}/health")
    assert health.json()["launch_token"] == "abc-1"
    client.double.make_blocks(10, 6.0)
    assert (await client.done(client.owner.close(7)))["code"] == 0
    info = await client.get(
        "/akash/deployment/v1beta4/deployments/info", **{"id.owner": client.owner.address, "id.dseq": "7"}
    )
    assert info.json()["deployment"]["state"] == "closed"
    assert info.json()["escrow_account"]["state"]["deposits"] == []
    state = await client.http.get(client.double.control_url + "/state")
    assert state.json()["chain"]["problems"] == []
    assert state.json()["chain"]["active_leases"] == 0


async def test_a_second_certificate_of_the_same_name_is_refused_in_the_handshake(client: Client) -> None:
    provider, url = await leased(client, 7, manifest())
    name = next(name for name, each in client.double.providers.items() if each.address == provider)
    client.double.faults.providers[name].impostor = True
    async with await pinned(client, provider) as gateway:
        with pytest.raises(httpx2.ConnectError):
            await gateway.get(f"{url}/lease/7/1/1/status", headers=client.bearer())


async def test_the_process_says_where_it_is_and_ends_when_it_is_told(tmp_path: Any) -> None:
    import sys

    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.doubles.akash", "--stub-nodes", "--block-s", "0.2"], stdout=-1
    )
    assert process.stdout is not None
    with trio.fail_after(30):
        line = bytes(await process.stdout.receive_some())
        ready = json.loads(line)
        started = time.monotonic()
        async with httpx2.AsyncClient() as http:
            while True:
                block = await http.get(ready["endpoints"][0] + "/cosmos/base/tendermint/v1beta1/blocks/latest")
                if int(block.json()["block"]["header"]["height"]) > 3:
                    break
                await trio.sleep(0.05)
        assert time.monotonic() - started < 20
        process.terminate()
        assert await process.wait() == 0
