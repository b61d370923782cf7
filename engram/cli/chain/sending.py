"""What the commands of `engram subnet` write to the chain, read back from the block that holds it."""

import sys
from pathlib import Path

import msgspec

from engram import wire
from engram.chain.model import RAO_PER_TAO, EndpointHealth, Metagraph
from engram.chain.read.runtime import SUBTENSOR, Call
from engram.chain.read.view import open_view
from engram.chain.submit import weights
from engram.chain.submit.calls import IDENTITY
from engram.chain.submit.submit_extrinsic import Included
from engram.cli.chain.common import Chain, PublicHotkey
from engram.cli.chain.endpoints import endpoints, read_back, send
from engram.cli.chain.follow import patience_s as patience_for
from engram.cli.chain.follow import until_revealed
from engram.cli.chain.revealing import commit_by_hash, committed
from engram.cli.failures import CommandFailed
from engram.cli.output import duration, moment
from engram.clock import SystemClock
from engram.hotkeys import Keypair, PublicKey


class Sent(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was sent, or would be."""

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
    """What was sent, with the block that holds it."""
    return msgspec.structs.replace(
        sent,
        online=True,
        block=done.block.number,
        block_hash="0x" + done.block.hash.hex(),
        extrinsic_hash="0x" + done.extrinsic_hash.hex(),
    )


async def before_register(chain: Chain, payer: PublicKey, healths: list[EndpointHealth]) -> tuple[Metagraph, int]:
    """The subnet, and the balance of whoever would pay, in rao. `healths` are for `burn`, see `endpoints`."""
    async with endpoints(chain, healths) as nodes:
        view = await open_view(nodes)
        metagraph = await view.metagraph(chain.netuid, SystemClock().monotonic())
        account = await view.storage("System", "Account", payer)
    return metagraph, wire.convert(account, _Account).data.free


class _Balance(msgspec.Struct):
    free: int


class _Account(msgspec.Struct):
    data: _Balance


async def burn(
    chain: Chain,
    call: Call,
    coldkey: Keypair,
    hotkey: PublicKey,
    limit_rao: float,
    patience_s: float,
    healths: list[EndpointHealth],
) -> tuple[Included, int | None]:
    """Pay, at most `limit_rao`; returns the uid that the block gives. Raises CommandFailed when the cost has risen."""
    async with endpoints(chain, healths) as nodes:
        view = await open_view(nodes)
        burn_rao = wire.convert(await view.storage("SubtensorModule", "Burn", chain.netuid), int)
        if burn_rao > limit_rao:
            raise CommandFailed(f"the cost has risen to {burn_rao / RAO_PER_TAO:.9f} TAO; nothing was paid")
        done = await send(chain, view, nodes, call, coldkey, patience_s)
        uid = await read_back(
            view, nodes, done, lambda there: there.storage("SubtensorModule", "Uids", chain.netuid, hotkey)
        )
    return done, uid if isinstance(uid, int) else None


async def link_identity(chain: Chain, call: Call, coldkey: Keypair, patience_s: float) -> Included:
    """Write the identity and read it back. Raises CommandFailed when the chain holds another."""
    async with endpoints(chain) as nodes:
        view = await open_view(nodes)
        done = await send(chain, view, nodes, call, coldkey, patience_s)
        if not view.types.has_storage(SUBTENSOR, IDENTITY):
            return done
        held = await read_back(view, nodes, done, lambda there: there.storage(SUBTENSOR, IDENTITY, coldkey.public_key))
        sent = view.types.encode_storage(SUBTENSOR, IDENTITY, call.arguments)
        if held is None or view.types.encode_storage(SUBTENSOR, IDENTITY, held) != sent:
            raise CommandFailed(f"included in block {done.block.number}, but the chain holds {held!r}")
    return done


async def announce(chain: Chain, call: Call, keypair: Keypair | PublicHotkey, online: bool, patience_s: float) -> Sent:
    """Announce and read it back; without `online` only compose it."""
    sent = Sent(f"{call.pallet}.{call.function}", keypair.ss58, chain.netuid, online, dict(call.arguments))
    async with endpoints(chain) as nodes:
        view = await open_view(nodes)
        view.types.compose(call)
        if not online:
            return sent
        assert isinstance(keypair, Keypair)
        done = await send(chain, view, nodes, call, keypair, patience_s)
        held = await read_back(
            view, nodes, done, lambda there: there.storage("SubtensorModule", "Axons", chain.netuid, keypair.public_key)
        )
    announced = held if isinstance(held, dict) else {}
    if (announced.get("ip"), announced.get("port")) != (call.arguments["ip"], call.arguments["port"]):
        raise CommandFailed(f"included in block {done.block.number}, but the chain holds {held!r}")
    return included(sent, done)


async def weigh(
    chain: Chain,
    keypair: Keypair | PublicHotkey,
    given: dict[int, float],
    version_key: int | None,
    online: bool,
    patience_s: float,
    folder: Path,
    *,
    follow: bool = False,
) -> Sent:
    """Set or commit the weights and read them back; without `online` tell what would be sent.

    `follow` waits until the chain has revealed what was committed under a timelock. Raises CommandFailed.
    """
    clock = SystemClock()
    async with endpoints(chain) as nodes:
        view = await open_view(nodes)
        metagraph = await view.metagraph(chain.netuid, clock.monotonic())
        key = metagraph.parameters.weights_version if version_key is None else version_key
        neuron = metagraph.neuron(keypair.public_key)
        scaled = weights.upscale(given, metagraph, None if neuron is None else neuron.uid)
        planned = await weights.plan(view, metagraph, scaled, keypair.public_key, key, clock.now())
        sent = Sent(
            call=f"{planned.call.pallet}.{planned.call.function}",
            signer=keypair.ss58,
            netuid=chain.netuid,
            online=online,
            arguments={
                "uids": list(planned.weights.uids),
                "weights": list(planned.weights.values),
                "version_key": planned.version_key,
                **({} if planned.reveal_round is None else timelock(planned.reveal_round)),
                **({} if planned.hashed is None else committed(planned.hashed, metagraph, folder)),
            },
            uid=None if neuron is None else neuron.uid,
            objections=weights.objections(metagraph, keypair.public_key, key, scaled),
        )
        if not online:
            return sent
        assert isinstance(keypair, Keypair)
        if sent.objections or neuron is None:
            raise CommandFailed("\n".join(["not sent, the chain would refuse it", *sent.objections]))
        if planned.hashed is None:
            done = await send(chain, view, nodes, planned.call, keypair, patience_s)
        else:
            done = await commit_by_hash(chain, view, nodes, planned, keypair, patience_s, folder)
            shown = committed(planned.hashed, metagraph, folder, done.block.number)
            sent = msgspec.structs.replace(sent, arguments=sent.arguments | shown)
        uid = neuron.uid
        held = await read_back(view, nodes, done, lambda there: weights.stands(there, planned, chain.netuid, uid))
        if not held:
            raise CommandFailed(f"included in block {done.block.number}, but the chain does not hold these weights")
        if follow and planned.reveal_round is not None:
            waiting_s = patience_for(planned.reveal_round, metagraph.parameters, clock.now())
            bound = f"waiting for it, for {duration(waiting_s)} at most (Ctrl-C ends only the waiting)"
            sys.stderr.write(f"{in_words(sent, done)}; {bound}\n")
            revealed = await until_revealed(nodes, planned, done, chain.netuid, uid, waiting_s, clock)
            sent = msgspec.structs.replace(sent, revealed_by_block=revealed)
    return included(sent, done)


def timelock(reveal_round: int) -> dict[str, object]:
    """When weights that are encrypted to this drand round are revealed."""
    return {"reveal_round": reveal_round, "revealed_about": moment(weights.reveal_about_s(reveal_round))}


def in_words(sent: Sent, done: Included | None = None) -> str:
    """What became of weights."""
    arguments, count = sent.arguments, len(wire.convert(sent.arguments["uids"], list[int]))
    where = "" if done is None else f" in block {done.block.number}"
    if "kept_in" in arguments:
        return "weights are committed: reveal them with `engram subnet reveal-weights`, in that window only"
    if "reveal_round" not in arguments:
        return f"weights of {count} uids are set"
    if sent.revealed_by_block is not None:
        return f"weights of {count} uids are committed and revealed: block {sent.revealed_by_block} holds them"
    return (
        f"weights of {count} uids are committed{where}, to be revealed at drand round {arguments['reveal_round']}, "
        f"about {arguments['revealed_about']}"
    )
