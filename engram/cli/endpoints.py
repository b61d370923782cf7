"""The endpoints of the chain that a command asks."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from config.model import ChainSettings
from engram.chain.endpoints import nodes
from engram.chain.node import Node
from engram.cli.chain import Chain
from engram.clock import SystemClock
from engram.http.client import HttpClient


@asynccontextmanager
async def endpoints(chain: Chain) -> AsyncIterator[Sequence[Node]]:
    """The nodes in the order in which they are tried; their connections end with the block."""
    http = HttpClient()
    settings = ChainSettings(
        source="recorded" if chain.network == "recorded" else "rpc",
        network=chain.network,
        endpoints=chain.endpoint,
        call_timeout_s=chain.timeout,
    )
    try:
        yield nodes(settings, http, SystemClock())
    finally:
        await http.aclose()
