"""The syncer, the HTTP client and a JSON-RPC server on real loopback sockets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio

from actors import ChildSpec, Registry, SupervisorSpec, open_system
from config.model import ChainSettings
from engram.chain import Subnets
from engram.chain.read.endpoints import open_endpoints
from engram.chain.sync.actor import MetagraphSyncer
from engram.chain.sync.protocol import Poll
from engram.clock import SystemClock
from engram.http.client import HttpClient
from tests.fakes.chain import ChainDouble, ChainServer, Fault
from tests.fakes.responder import Answer


@pytest.fixture
async def server(nursery: trio.Nursery) -> ChainServer:
    server = ChainServer(ChainDouble())
    await nursery.start(server.run)
    return server


class Syncing:
    def __init__(self, subnets: Subnets, registry: Registry) -> None:
        self.subnets = subnets
        self._ref = registry.ref(MetagraphSyncer, "chain")

    async def poll(self) -> None:
        await self._ref.call(Poll(), timeout=10)

    @property
    def block(self) -> int | None:
        found = self.subnets.get(450)
        return None if found is None else found.block


@asynccontextmanager
async def syncing(*urls: str) -> AsyncIterator[Syncing]:
    settings = ChainSettings(endpoints=urls, call_timeout_s=0.5, poll_s=3_600.0, netuids=(450,))
    clock = SystemClock()
    subnets = Subnets(clock, settings.netuids, settings.stall_after_s)
    http = HttpClient()
    registry = Registry()
    spec = ChildSpec(
        "chain",
        lambda: MetagraphSyncer(open_endpoints(settings, http, clock), subnets, settings, clock, Random(7)),
        name="chain",
    )
    async with open_system(SupervisorSpec("root", [spec]), registry=registry):
        running = Syncing(subnets, registry)
        await running.poll()
        yield running
    await http.aclose()


def always(status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> Fault:
    async def fault(body: bytes) -> Answer | None:
        return status, headers or {}, content

    return fault


async def late(body: bytes) -> Answer | None:
    await trio.sleep(60)
    return None


async def cut(body: bytes) -> Answer | None:
    return None


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (late, "no answer"),
        (cut, ""),
        (always(200, b"<html>proxy error</html>"), "no JSON-RPC answer"),
        (always(429, headers={"retry-after": "7"}), "HTTP 429"),
        (always(502), "HTTP 502"),
    ],
    ids=["late", "cut", "garbage", "429", "502"],
)
async def test_a_fault_on_the_wire_leaves_the_last_good_state_and_is_told(
    server: ChainServer, fault: Fault, error: str
) -> None:
    async with syncing(server.url) as running:
        assert running.block == 1100
        server.double.head += 1
        server.fault = fault
        await running.poll()
        assert running.block == 1100
        status = running.subnets.status()
        assert error in status.error
        assert status.failures == 1


async def test_a_retry_after_on_the_wire_sets_the_endpoint_aside_that_long(server: ChainServer) -> None:
    server.fault = always(429, headers={"retry-after": "7"})
    async with syncing(server.url) as running:
        (health,) = running.subnets.status().endpoints.values()
        assert 6.5 < health.not_before_s - SystemClock().monotonic() < 9.0


async def test_a_second_endpoint_serves_when_the_first_hangs(server: ChainServer, nursery: trio.Nursery) -> None:
    other = ChainServer(ChainDouble())
    await nursery.start(other.run)
    server.fault = late
    async with syncing(server.url, other.url) as running:
        assert running.block == 1100
        assert running.subnets.status().endpoint == other.url


async def test_a_reorganised_chain_on_the_wire_is_not_acted_on(server: ChainServer) -> None:
    async with syncing(server.url) as running:
        server.double.reorganise(1099)
        server.double.head += 1
        await running.poll()
        assert running.block == 1100
        assert "does not descend from ours" in running.subnets.status().error


async def test_batches_answered_out_of_order_and_servers_without_batches_are_served(server: ChainServer) -> None:
    server.shape = lambda replies: list(reversed(replies)) if isinstance(replies, list) else replies
    async with syncing(server.url) as running:
        assert running.block == 1100
        server.batches = False
        server.double.head += 1
        await running.poll()
        assert running.block == 1101
