"""Serves the memory of one node to agents over HTTP, until SIGTERM or Ctrl-C."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

import trio

from config.model import HttpSettings
from engram.agents.memories import Memories
from engram.agents.tools import catalog
from engram.api import mcp as api
from engram.api.call import Call, Surface
from engram.api.serving import Endpoints
from engram.clock import Clock, SystemClock, SystemIds
from engram.hotkeys import Keypair
from engram.http.app import App, new_app
from engram.http.listener import serve
from engram.http.request import Answer
from engram.http.router import Router
from engram.http.sockets import Address
from engram.mcp import Dispatcher
from engram.mcp.access import ALL, Access, Policy
from engram.mcp.http import McpEndpoint
from engram.mcp.revocation import RevocationEndpoint, RevocationFile
from engram.telemetry.metrics import Metrics

DRAIN_S: Final = 5.0
A_MINUTE: Final = 6_000
"""Requests from one address: an agent that stores what it knows makes a hundred a second, and the node has its own
bounds."""
SETTINGS: Final = HttpSettings(requests_per_minute_per_ip=A_MINUTE)


def policy_of(keypair: Keypair | None, hosts: Sequence[str], *, open_loopback: bool) -> Policy:
    """Return who may call: tokens of the memory's own key, and with `open_loopback` programs on this machine."""
    return Policy(
        hosts=frozenset(host.lower() for host in hosts),
        named_by="--host",
        loopback=ALL if open_loopback else frozenset(),
        permitted=lambda key: keypair is not None and key == keypair.public_key,
    )


def memory_app(memories: Memories, policy: Policy, revocations: RevocationFile, clock: Clock) -> App:
    """Return the application."""
    metrics = Metrics()
    app = new_app("mcp", settings=SETTINGS, clock=clock, ids=SystemIds(), metrics=metrics)
    access = Access(policy, clock, revocations.is_revoked)
    endpoint = McpEndpoint(Dispatcher(catalog(memories)), access)
    revoking = RevocationEndpoint(access, revocations, clock)

    async def post(call: Call[api.McpMessage, None]) -> Answer:
        return await endpoint.post(call.http)

    async def revoke(call: Call[api.RevokeBody, None]) -> Answer:
        return await revoking.post(call.http)

    endpoints: Endpoints[None] = Endpoints(Router(app), Surface())
    endpoints.bind(api.MCP, post)
    endpoints.bind(api.REVOKE, revoke)
    endpoints.require_all(api.ROUTES)
    return app


async def serve_until_stopped(memories: Memories, host: str, port: int, policy: Policy, revoked: Path) -> None:
    """Serve; writes the URL to standard error once it does. Raises OSError, ValueError."""
    app = memory_app(memories, policy, RevocationFile(revoked), SystemClock())
    life = _Life()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life.end_on_signals)
        await serve(app, host, port, context=life, settings=SETTINGS, drain_s=DRAIN_S)
        nursery.cancel_scope.cancel()


@final
class _Life:
    """What a server needs of its job; see engram.http.listener.Host."""

    def __init__(self) -> None:
        self.stop_requested = trio.Event()

    def ready(self, info: object = None) -> None:
        """Say where it serves."""
        if isinstance(info, Address):
            print(f"engram: MCP at {info.url}/mcp", file=sys.stderr, flush=True)

    async def end_on_signals(self) -> None:
        """Request the stop at a signal."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                self.stop_requested.set()
