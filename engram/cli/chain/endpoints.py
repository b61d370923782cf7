"""The endpoints of the chain that a command asks, and what it sends through them."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

from config.model import ChainSettings
from engram.chain.model import EndpointHealth
from engram.chain.read.endpoints import open_endpoints
from engram.chain.read.node import ChainEndpoint
from engram.chain.read.view import View
from engram.chain.read.watched import watch
from engram.chain.submit.sender import Sender
from engram.chain.submit.submit_extrinsic import InclusionWait
from engram.chain.submit.substrate import SubstrateComposer
from engram.cli.chain.common import DEFAULT_NETWORK, ChainOptions
from engram.cli.chain.trace import TracedEndpoint
from engram.clock import SystemClock
from engram.http.client import HttpClient


@asynccontextmanager
async def endpoints(
    chain: ChainOptions, healths: list[EndpointHealth] | None = None
) -> AsyncIterator[Sequence[ChainEndpoint]]:
    """Yield the endpoints in the order in which they are tried; their connections end with the block.

    One that hangs costs the command its timeout once: its health is remembered for the whole command. A command that
    opens them twice passes one list of `healths`, empty at first. Raises CommandFailed for a malformed URL.
    """
    chain.check()
    network = chain.network_name or DEFAULT_NETWORK
    settings = ChainSettings(
        source="recorded" if network == "recorded" else "rpc",
        network=network,
        endpoints=chain.urls,
        call_timeout_s=chain.timeout,
    )
    http, clock = HttpClient(), SystemClock()
    try:
        opened = open_endpoints(settings, http, clock)
        known = [] if healths is None else healths
        known += [EndpointHealth() for _ in opened[len(known) :]]
        yield watch(
            [TracedEndpoint(node) for node in opened] if chain.debug else opened, clock, Random(), healths=known
        )
    finally:
        await http.aclose()


def sender(chain: ChainOptions, nodes: Sequence[ChainEndpoint], patience_s: float) -> Sender:
    """Return a Sender for these options."""
    return Sender(
        nodes,
        network=chain.network_name,
        waiting=InclusionWait(min(2.0, patience_s / 20), patience_s),
        composer=None if chain.composer == "core" else _substrate,
        sending=_report_sending,
    )


def _substrate(view: View) -> SubstrateComposer:
    return SubstrateComposer(view.node)


def _report_sending(digest: bytes, last_block: int) -> None:
    """Name the extrinsic on standard error, so that a user who interrupts the wait can look for it."""
    sys.stderr.write(f"sending 0x{digest.hex()}, which may be included until block {last_block}\n")
    sys.stderr.flush()
