"""The chain is asked by the syncer alone, however many requests a gateway answers, and of every kind."""

import http.client
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from engram.api.gateway import ROUTES
from engram.chain.read.node import Json, RpcCall
from engram.hotkeys import gateway_scheme
from tests.cli.chains import served
from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.fakes.living_chain import LivingChain

NO_NODES = "\n[provisioning]\nattempts = 1\nlaunch_timeout_s = 0.05\n"
"""A node follows the chain too, and would be counted with the gateway."""
LAPS = 4
AT_ONCE = 4


class Counted(LivingChain):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def answer(self, call: RpcCall) -> Json:
        self.calls.append(call.method)
        return super().answer(call)


def settings(endpoint: str, poll_s: float) -> str:
    chain = f'\n[chain]\nsource = "rpc"\nendpoints = ["{endpoint}"]\npoll_s = {poll_s}\n'
    return FAST + NO_NODES + chain


def status(url: str, buyer: Buyer, method: str, path: str, body: bytes, stamp_ms: int) -> int:
    """The answer's status; a stream is left after its head."""
    at = urlsplit(url)
    signed = gateway_scheme.sign_request(buyer.keypair, method, path, stamp_ms, body, version=2)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=15)
    try:
        connection.request(method, path, body=body or None, headers=signed)
        return connection.getresponse().status
    finally:
        connection.close()


def synced(gateway: GatewayProcess, buyer: Buyer, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while status(gateway.url, buyer, "GET", "/bittensor/metagraph", b"", int(time.time() * 1000)) != 200:
        assert time.monotonic() < deadline, gateway.log()
        time.sleep(0.05)


@pytest.fixture
def chain() -> Counted:
    return Counted()


@pytest.fixture
def url(chain: Counted) -> Iterator[str]:
    with served(chain) as server:
        yield server.url


def requests(session_id: str, payment_id: str, hotkey: str) -> list[tuple[str, str]]:
    """Every operation of the document, of things that are there and of things that are not."""
    found: list[tuple[str, str]] = []
    for route in ROUTES:
        for path_ids in ((session_id, payment_id, hotkey), ("none", "none", "none")):
            session, payment, key = path_ids
            named = {"session_id": session, "payment_id": payment, "hotkey": key, "address": f"0x{'00' * 20}"}
            path = route.path.replace("{path...}", "health").format(**named)
            found.append((route.method, path))
    queries = ("netuid=450", "netuid=451", "netuid=0", "netuid=65535", "fields=uid,axon", "fields=none", "netuid=x")
    return found + [("GET", f"/bittensor/metagraph?{query}") for query in queries]


def test_no_request_of_any_kind_asks_the_chain(chain: Counted, url: str, tmp_path: Path) -> None:
    buyer = Buyer()
    with GatewayProcess(tmp_path / "data", settings=settings(url, poll_s=3_600.0)) as gateway:
        gateway.start()
        synced(gateway, buyer)
        before = list(chain.calls)
        assert before.count("chain_getFinalizedHead") == 1
        buyer.quote(gateway.url)
        bought = buyer.pay(gateway.url).body
        asked = requests(str(bought["session_id"]), str(bought["payment_id"]), buyer.keypair.ss58) * LAPS
        now_ms = int(time.time() * 1000)  # Stamps of their own: none of these is a replay.

        def send(place: int) -> int:
            method, path = asked[place]
            body = b'{"tier": "lite", "duration_hours": 1}' if method == "POST" else b""
            return status(gateway.url, buyer, method, path, body, now_ms + place)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            told = list(pool.map(send, range(len(asked))))
        for path in ("/status", "/metrics", "/health", "/ready"):
            told.append(status(gateway.ops_url, buyer, "GET", path, b"", now_ms))
        assert {code // 100 for code in told} == {2, 4}
        assert chain.calls == before
        assert gateway.terminate() == 0


def test_such_calls_would_be_counted(chain: Counted, url: str, tmp_path: Path) -> None:
    buyer = Buyer()
    with GatewayProcess(tmp_path / "data", settings=settings(url, poll_s=0.2)) as gateway:
        gateway.start()
        synced(gateway, buyer)
        before, deadline = len(chain.calls), time.monotonic() + 10
        while len(chain.calls) == before:
            assert time.monotonic() < deadline, "the syncer has stopped"
            time.sleep(0.05)
