"""The endpoints of the chain that a command asks."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Final, TypeVar

import trio

from config.model import ChainSettings
from engram.chain.errors import (
    AnswerMalformed,
    AnswersDiffer,
    CallNotComposable,
    CallRefused,
    EndpointBusy,
    EndpointUnreachable,
    NotReadBack,
    RuntimeApiMissing,
)
from engram.chain.model import EndpointHealth
from engram.chain.read.endpoints import check_genesis, nodes
from engram.chain.read.node import Node
from engram.chain.read.runtime import Call
from engram.chain.read.view import View, view_at
from engram.chain.read.watched import watch
from engram.chain.submit.compose import Composer, CoreComposer
from engram.chain.submit.submit_extrinsic import Included, Waiting, submit
from engram.chain.submit.substrate import SubstrateComposer
from engram.cli.chain.common import DEFAULT_NETWORK, Chain
from engram.cli.chain.trace import Traced
from engram.clock import SystemClock
from engram.hotkeys import Keypair
from engram.http.client import HttpClient

T = TypeVar("T")
READ_BACK_ROUNDS: Final = 3
READ_BACK_PAUSE_S: Final = 0.5
_NOT_READ: Final = (
    EndpointBusy,
    EndpointUnreachable,
    AnswerMalformed,
    AnswersDiffer,
    CallRefused,
    CallNotComposable,
    RuntimeApiMissing,
)
"""Says nothing of what the chain holds: an endpoint failed, or the runtime was upgraded to another layout."""


@asynccontextmanager
async def endpoints(chain: Chain, healths: list[EndpointHealth] | None = None) -> AsyncIterator[Sequence[Node]]:
    """The nodes in the order in which they are tried; their connections end with the block. Raises CommandFailed.

    One that hangs costs the command its timeout once: what is learned of it is kept for the command's own time. A
    command that opens them twice hands in one list of `healths`, empty at first.
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
        asked = nodes(settings, http, clock)
        known = [] if healths is None else healths
        known += [EndpointHealth() for _ in asked[len(known) :]]
        yield watch([Traced(node) for node in asked] if chain.debug else asked, clock, Random(), healths=known)
    finally:
        await http.aclose()


async def send(
    chain: Chain, view: View, nodes: Sequence[Node], call: Call, keypair: Keypair, patience_s: float
) -> Included:
    """Submits a call as the options say; raises as `submit`."""
    composer: Composer = CoreComposer(view.types) if chain.composer == "core" else SubstrateComposer(view.node)
    waiting = Waiting(min(2.0, patience_s / 20), patience_s)
    judging = partial(check_genesis, chain.network_name)
    return await submit(view, nodes, call, keypair, waiting, composer, _told, judging)


async def read_back(view: View, nodes: Sequence[Node], done: Included, look: Callable[[View], Awaitable[T]]) -> T:
    """What `look` finds in the block that holds a call, by the first endpoint that tells and no other contradicts.

    Raises NotReadBack.
    """
    why = ""
    for lap in range(READ_BACK_ROUNDS):
        for node in (view.node, *(other for other in nodes if other is not view.node)):
            others = [other for other in nodes if other is not node]
            try:
                return await look(await view_at(node, done.block.hash, view, others))
            except _NOT_READ as error:
                why = str(error)
        if lap < READ_BACK_ROUNDS - 1:
            await trio.sleep(READ_BACK_PAUSE_S)
    raise NotReadBack(done.extrinsic_hash, done.block.number, why)


def _told(digest: bytes, last_block: int) -> None:
    """Whoever interrupts the waiting must know what to look for."""
    sys.stderr.write(f"sending 0x{digest.hex()}, which may be included until block {last_block}\n")
    sys.stderr.flush()
