"""What the commands of `engram subnet` read from the chain and write to it, weights apart (weights.py)."""

import msgspec

from engram.chain.model import EndpointHealth
from engram.chain.read.runtime import RuntimeCall
from engram.chain.read.view import open_view
from engram.chain.registry import publish
from engram.chain.registry.hotkey_status import HotkeyStatus, hotkey_status, read_facts
from engram.chain.registry.probe import Probing
from engram.chain.submit import identity, register
from engram.chain.submit.register import PaidRegistration, RegistrationTerms
from engram.chain.submit.submit_extrinsic import Included
from engram.cli.chain.common import ChainOptions, PublicHotkey
from engram.cli.chain.endpoints import endpoints, sender
from engram.clock import SystemClock
from engram.hotkeys import Keypair, PublicKey
from engram.http.client import HttpClient


class Sent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call that was sent, or would be."""

    call: str
    signer: str
    netuid: int
    online: bool
    arguments: dict[str, object]
    cost_tao: float | None = None
    balance_tao: float | None = None
    uid: int | None = None
    objections: list[str] = []
    block: int | None = None
    block_hash: str | None = None
    extrinsic_hash: str | None = None
    revealed_by_block: int | None = None
    """A finalized block that holds committed weights in the open; None while they are not revealed or not followed."""


def included(sent: Sent, done: Included) -> Sent:
    """Return what was sent, with the block that includes it."""
    return msgspec.structs.replace(
        sent,
        online=True,
        block=done.block.number,
        block_hash="0x" + done.block.hash.hex(),
        extrinsic_hash="0x" + done.extrinsic_hash.hex(),
    )


async def read_status(
    chain: ChainOptions, hotkey: PublicKey, probing: Probing | None, since: int | None
) -> HotkeyStatus:
    """Return the hotkey's status; `probing` None does not ask its committed endpoint, `since` see `read_facts`."""
    async with endpoints(chain) as nodes:
        view = await open_view(nodes)
        facts = await read_facts(view, chain.netuid, hotkey, SystemClock().monotonic(), since=since)
    http = HttpClient()
    try:
        return await hotkey_status(facts, http, probing)
    finally:
        await http.aclose()


async def read_terms(
    chain: ChainOptions, hotkey: PublicKey, payer: PublicKey, healths: list[EndpointHealth]
) -> RegistrationTerms:
    """Return what a registration takes. `healths` are for `burn`, see `endpoints`."""
    async with endpoints(chain, healths) as nodes:
        view = await open_view(nodes)
        return await register.read_terms(view, chain.netuid, hotkey, payer, SystemClock().monotonic())


async def burn(
    chain: ChainOptions,
    coldkey: Keypair,
    hotkey: PublicKey,
    limit_rao: float,
    patience_s: float,
    healths: list[EndpointHealth],
) -> PaidRegistration:
    """Register the hotkey for at most `limit_rao`."""
    async with endpoints(chain, healths) as nodes:
        view = await open_view(nodes)
        sending = sender(chain, nodes, patience_s)
        return await register.register(sending, view, chain.netuid, coldkey, hotkey, limit_rao)


async def link_identity(chain: ChainOptions, fields: dict[str, str], coldkey: Keypair, patience_s: float) -> Included:
    """Write the coldkey's identity."""
    async with endpoints(chain) as nodes:
        view = await open_view(nodes)
        return await identity.set_identity(sender(chain, nodes, patience_s), view, fields, coldkey)


async def announce(
    chain: ChainOptions, call: RuntimeCall, keypair: Keypair | PublicHotkey, online: bool, patience_s: float
) -> Sent:
    """Announce an axon; without `online` only compose the call, which finds what the runtime would refuse."""
    sent = Sent(f"{call.pallet}.{call.function}", keypair.ss58, chain.netuid, online, dict(call.arguments))
    async with endpoints(chain) as nodes:
        view = await open_view(nodes)
        view.types.compose(call)
        if not online:
            return sent
        assert isinstance(keypair, Keypair)
        done = await publish.announce(sender(chain, nodes, patience_s), view, chain.netuid, call, keypair)
    return included(sent, done)
