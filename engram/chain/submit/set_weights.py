"""Proposes weights as a subnet's own rules demand them (weights.py), sends them, and reads them back.

Weights committed by hash are kept on disk, with the salt that opens them, before the commit leaves the machine; a
commit that certainly was not written is forgotten again.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from engram.chain.errors import (
    ChainError,
    EndpointBusy,
    EndpointUnreachable,
    NotHeld,
    RefusedInBlock,
    SubmitRefused,
    WeightsRejected,
)
from engram.chain.model import Metagraph
from engram.chain.read.view import View
from engram.chain.submit import weights
from engram.chain.submit.kept_commits import KeptCommits
from engram.chain.submit.sender import Sender
from engram.chain.submit.submit_extrinsic import Included
from engram.chain.submit.weights import WeightsPlan
from engram.clock import Clock
from engram.hotkeys import Keypair, PublicKey

_NOT_WRITTEN: Final = (SubmitRefused, RefusedInBlock)
"""Errors after which a commit will never be in a block; after any other one it may be."""


class WeightsProposal(msgspec.Struct, frozen=True):
    """Weights of a hotkey, ready to be sent at the block of `metagraph`."""

    metagraph: Metagraph
    plan: WeightsPlan
    uid: int | None
    """Of the hotkey; None when it is not registered."""
    objections: list[str]
    """Why the chain would refuse them now; empty when it would take them."""


async def propose(
    view: View, netuid: int, hotkey: PublicKey, given: Mapping[int, float], version_key: int | None, clock: Clock
) -> WeightsProposal:
    """Return what would be sent for these weights by uid; `version_key` None is the subnet's own.

    Raises WeightsInvalid, RuntimeApiMissing, or how reading failed.
    """
    metagraph = await view.metagraph(netuid, clock.monotonic())
    key = metagraph.parameters.weights_version if version_key is None else version_key
    neuron = metagraph.neuron(hotkey)
    uid = None if neuron is None else neuron.uid
    scaled = weights.upscale(given, metagraph, uid)
    plan = await weights.plan(view, metagraph, scaled, hotkey, key, clock.now())
    return WeightsProposal(metagraph, plan, uid, weights.objections(metagraph, hotkey, key, scaled))


async def set_weights(
    sender: Sender, view: View, proposal: WeightsProposal, keypair: Keypair, kept: KeptCommits
) -> Included:
    """Send a proposal and read it back.

    Raises WeightsRefused when there are objections, NotHeld when the chain holds other weights, KeptCommitError, and
    else as `Sender`.
    """
    plan, netuid, uid = proposal.plan, proposal.metagraph.netuid, proposal.uid
    if proposal.objections or uid is None:
        raise WeightsRejected(proposal.objections)
    if plan.hashed is None:
        done = await sender.send(view, plan.call, keypair)
    else:
        done = await _commit_by_hash(sender, view, plan, keypair, kept)
    await require_held(sender, view, done, plan, netuid, uid)
    return done


async def require_held(sender: Sender, view: View, done: Included, plan: WeightsPlan, netuid: int, uid: int) -> None:
    """Raise NotHeld unless the block of `done` holds the weights, or the commit, of the plan."""
    if not await sender.read_back(view, done, lambda at: weights.holds(at, plan, netuid, uid)):
        raise NotHeld(done.block.number, "does not hold these weights")


async def _commit_by_hash(
    sender: Sender, view: View, plan: WeightsPlan, keypair: Keypair, kept: KeptCommits
) -> Included:
    assert plan.hashed is not None
    kept.keep(plan.hashed)
    try:
        return await sender.send(view, plan.call, keypair)
    except _NOT_WRITTEN:
        kept.forget(plan.hashed)
        raise
    except ChainError as error:
        known = isinstance(error, EndpointUnreachable | EndpointBusy) and not error.may_have_arrived
        if known or error.nothing_was_sent:
            kept.forget(plan.hashed)
        raise
