"""A process of each role that runs on one machine, scraped, and each with something to count.

A gateway with its node, and one that rents on the double of Akash; a receiver that agents ask; a validator, and a node
that announces itself, on doubles of the chain; a proxy with a server behind it; a worker of the orchestrator's double.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio

from config.model import MinerSettings
from engram.demo_backends import BACKENDS
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.payments.play_wallet import PlayWallet
from engram.sdk.gateway import GatewayClient
from tests.cli.chains import served
from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.fakes.chain import ChainServer
from tests.mcp.toys import call, request
from tests.miner.nodes import NodeProcess, node
from tests.miner.test_announcing_node import registered
from tests.proxy.plain_backend import plain_backend
from tests.proxy.process import ProxyProcess, document
from tests.proxy.test_process import call as call_proxy
from tests.shared import free_port
from tests.validator.subnets import SmallSubnet, miner_key, write_key
from tests.validator.test_process import ValidatorProcess
from tests.validator.toy_miners import ServesPublicFile
from tests.worker.processes import world
from tests.xeris.xeris_process import XerisProcess

WITHIN_S: Final = 60.0


class Neighbour(NamedTuple):
    """A process, the address that is scraped, and what gives it something to count."""

    name: str
    address: str
    work: Callable[[], Awaitable[None]]


async def no_work() -> None:
    """Do nothing: what it counts happens by itself."""
    await trio.lowlevel.checkpoint()


def address(url: str) -> str:
    """Return host and port of a URL."""
    return url.partition("://")[2]


@asynccontextmanager
async def neighbours(folder: Path) -> AsyncIterator[list[Neighbour]]:
    """Run all but the gateway with its node and receiver."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(each(folder / each.__name__))
            for each in (validating, announcing, renting, passing, working)
        ]


def selling(gateway: GatewayProcess, http: HttpClient, name: str = "gateway") -> Neighbour:
    """Return a gateway: a node is bought and stopped, one request has no signature that holds, and one no host."""

    def buy() -> None:
        with GatewayClient(gateway.url, Keypair.generate(), PlayWallet(b"\7" * 32)) as shop:
            session = shop.wait_active(shop.create_session("lite", hours=1).session_id, timeout_s=WITHIN_S)
            shop.stop(session.session_id)

    async def work() -> None:
        await trio.to_thread.run_sync(buy)
        await http.request("POST", f"{gateway.url}/sessions", content=b"{}", headers={"x-hotkey": "nobody"})
        await http.request("GET", f"{gateway.url}//", headers={"host": "no host"})

    return Neighbour(name, address(gateway.ops_url), work)


def receiving(made: XerisProcess, http: HttpClient) -> Neighbour:
    """Return a receiver whose tools are called."""

    async def work() -> None:
        for line in (request("tools/list"), call("latest", {"kind": "memory"})):
            headers = {"content-type": "application/json"}
            found = await http.request("POST", f"{made.url}/mcp", content=line, headers=headers)
            assert found.status == 200, found.content

    return Neighbour("receiver", address(made.ops_url), work)


@asynccontextmanager
async def renting(folder: Path) -> AsyncIterator[Neighbour]:
    """Run a gateway whose nodes are on the double of Akash."""
    folder.mkdir()
    http = HttpClient()
    with BACKENDS["akash"](folder) as settings, GatewayProcess(folder / "data", settings=FAST + settings) as gateway:
        await trio.to_thread.run_sync(gateway.start)
        yield selling(gateway, http, "akash")
        await http.aclose()


@asynccontextmanager
async def validating(folder: Path) -> AsyncIterator[Neighbour]:
    """Run a validator that has set weights once, and has an honest miner and a cheat."""
    chain, cheat = SmallSubnet(), ServesPublicFile(miner_key(9))
    chain.seal_at_look = True
    (folder / "miner").mkdir(parents=True)
    miner = NodeProcess(folder / "miner")
    (folder / "miner" / "hotkey").unlink()
    write_key(folder / "miner" / "hotkey", miner_key(7))
    async with trio.open_nursery() as nursery:
        url = await nursery.start(ChainServer(chain).run)
        await nursery.start(cheat.run)
        await trio.to_thread.run_sync(miner.start)
        chain.announce({7: miner.port, 9: int(cheat.url.rpartition(":")[2])})
        made, port = ValidatorProcess(folder, url), free_port()
        settings = made.config.read_text().replace("[ops]\nport = 0", f"[ops]\nport = {port}")
        made.config.write_text(settings)
        made.start()
        try:
            with trio.fail_after(WITHIN_S):
                while not chain.weights_of():  # noqa: ASYNC110  # another process sets them
                    await trio.sleep(0.2)
            yield Neighbour("validator", f"127.0.0.1:{port}", no_work)  # a round begins every few seconds
        finally:
            made.end()
            miner.terminate()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def announcing(folder: Path) -> AsyncIterator[Neighbour]:
    """Run a node that announces itself on the chain."""
    folder.mkdir()
    with served(registered()) as chain:
        told: dict[str, Any] = {"chain_endpoint": chain.url, "miner": MinerSettings(announce="127.0.0.1")}
        with node(folder, **told) as made:
            found = json.loads((made.folder / "data" / "ops.json").read_text(encoding="utf-8"))
            yield Neighbour("announced", address(found["url"]), no_work)


@asynccontextmanager
async def passing(folder: Path) -> AsyncIterator[Neighbour]:
    """Run a proxy that passes requests on, and refuses some."""
    folder.mkdir()
    with plain_backend() as port, ProxyProcess(folder, document(port)) as made:
        await trio.to_thread.run_sync(made.start)

        def work() -> None:
            for path in ("/inference", "/elsewhere"):
                call_proxy(made, "POST", path, b"hi")

        yield Neighbour("proxy", address(made.ops_url), lambda: trio.to_thread.run_sync(work))


@asynccontextmanager
async def working(folder: Path) -> AsyncIterator[Neighbour]:
    """Run a worker that does jobs."""
    folder.mkdir()
    async with world(folder, free_port()) as made:
        await made.orchestrator.start()
        await made.worker.start()
        done = 0

        async def work() -> None:
            nonlocal done
            done += 1
            await made.post(f"job-{done}")
            await made.settled(done)

        yield Neighbour("worker", address(str(made.worker.ready["ops_url"])), work)
