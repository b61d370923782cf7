"""Follows commits until their weights are revealed: by the chain (timelocked), or by us (committed by hash)."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import trio

from engram.chain.errors import TRANSIENT, NoCommitKept, NotRegistered, RevealAwaited, RevealFailed
from engram.chain.model import Metagraph, SubnetParameters
from engram.chain.read.node import ChainEndpoint
from engram.chain.read.view import View, open_view
from engram.chain.submit import hashed_weights
from engram.chain.submit.hashed_weights import HashedCommit, Stage, Window
from engram.chain.submit.kept_commits import KeptCommits
from engram.chain.submit.sender import Sender
from engram.chain.submit.set_weights import require_held
from engram.chain.submit.submit_extrinsic import Included
from engram.chain.submit.weights import BLOCK_S, Revealing, Weights, WeightsPlan, read_revealing, reveal_about_s
from engram.clock import Clock
from engram.hotkeys import Keypair, PublicKey, ss58

MARGIN_S: Final = 600.0
"""Added to the expected time of a timelocked reveal: a chain whose blocks are late reveals late."""


# timelocked: the chain reveals


def patience_s(reveal_round: int, parameters: SubnetParameters, now_s: float) -> float:
    """Return how long to wait for a timelocked reveal: until it is expected, and one tempo and MARGIN_S more."""
    return max(0.0, reveal_about_s(reveal_round) - now_s) + parameters.tempo * BLOCK_S + MARGIN_S


async def until_revealed(
    nodes: Sequence[ChainEndpoint],
    plan: WeightsPlan,
    done: Included,
    netuid: int,
    uid: int,
    waiting_s: float,
    on_block: Callable[[int], None] = lambda block: None,
) -> int:
    """Return the number of the finalized block in which the weights were seen; looks once a block.

    `on_block` learns the newest block looked at before each wait. Raises RevealFailed when the chain has dropped the
    commit, RevealAwaited after `waiting_s` seconds.
    """
    seen = done.block.number
    with trio.move_on_after(waiting_s):
        while True:
            on_block(seen)
            await trio.sleep(BLOCK_S)
            try:
                view = await open_view(nodes)
                if view.head.number <= done.block.number:
                    continue
                found = await read_revealing(view, plan, netuid, uid)
            except TRANSIENT:
                continue
            seen = view.head.number
            if found is Revealing.REVEALED:
                return seen
            if found is Revealing.DROPPED:
                raise RevealFailed(done.block.number, seen)
    raise RevealAwaited(done.block.number, seen)


# committed by hash: we reveal


class CommitStatus(msgspec.Struct, frozen=True):
    """A kept commit, and what may be done with it."""

    commit: HashedCommit
    stage: Stage
    window: Window | None = None
    """None when the chain does not hold the commit."""
    wait_blocks: int = 0
    """Blocks until the window opens."""
    revealed: Included | None = None
    """The block of its reveal, once it was sent."""


class KeptCommitsAt(msgspec.Struct, frozen=True):
    """All kept commits of one hotkey at one finalized block, the oldest first."""

    block: int
    metagraph: Metagraph
    statuses: list[CommitStatus]

    @property
    def must_wait(self) -> bool:
        """Whether none can be revealed now, and one may be later."""
        stages = {status.stage for status in self.statuses}
        return Stage.OPEN not in stages and not stages.isdisjoint({Stage.WAITING, Stage.UNSEEN})

    @property
    def wait_blocks(self) -> int:
        """Blocks until the first of those that may be revealed later opens."""
        later = (Stage.WAITING, Stage.UNSEEN)
        return min((status.wait_blocks for status in self.statuses if status.stage in later), default=0)


async def read_commits(
    nodes: Sequence[ChainEndpoint], netuid: int, hotkey: PublicKey, kept: KeptCommits, clock: Clock
) -> KeptCommitsAt:
    """Return the kept commits of a hotkey. Raises NoCommitKept, KeptCommitError, or how reading failed."""
    view = await open_view(nodes)
    commits = kept.of(await hashed_weights.read_genesis(view.node), netuid, hotkey)
    if not commits:
        none = f"no commit of {ss58.encode(hotkey)} on subnet {netuid} is kept in {kept.folder}"
        raise NoCommitKept("; ".join([none, *kept.unusable(netuid)]))
    return await _at(view, netuid, commits, clock)


async def until_open(
    nodes: Sequence[ChainEndpoint],
    found: KeptCommitsAt,
    clock: Clock,
    on_block: Callable[[KeptCommitsAt], None] = lambda found: None,
) -> KeptCommitsAt:
    """Wait, block by block, until a commit can be revealed or none ever can be. That may take hours."""
    commits, netuid = [status.commit for status in found.statuses], found.metagraph.netuid
    while found.must_wait:
        on_block(found)
        await trio.sleep(BLOCK_S)
        try:
            found = await _at(await open_view(nodes), netuid, commits, clock)
        except TRANSIENT:
            continue  # One bad answer in hours of waiting is no reason to give up.
    return found


async def reveal(sender: Sender, found: KeptCommitsAt, keypair: Keypair, kept: KeptCommits) -> KeptCommitsAt:
    """Reveal what is open, the oldest first, and forget what was revealed or never can be.

    Raises NotRegistered, NotHeld, KeptCommitError, and else as `Sender`.
    """
    netuid, neuron = found.metagraph.netuid, found.metagraph.neuron(keypair.public_key)
    if neuron is None:
        raise NotRegistered(keypair.ss58, netuid)
    statuses: list[CommitStatus] = []
    for status in found.statuses:
        done = await _reveal(sender, status.commit, keypair, neuron.uid) if status.stage is Stage.OPEN else None
        statuses.append(msgspec.structs.replace(status, revealed=done))
        if status.stage in (Stage.OPEN, Stage.EXPIRED, Stage.GONE):
            kept.forget(status.commit)
    return msgspec.structs.replace(found, statuses=statuses)


async def _reveal(sender: Sender, commit: HashedCommit, keypair: Keypair, uid: int) -> Included:
    view = await open_view(sender.nodes)  # Each reveal is signed at a head of its own.
    plan = WeightsPlan(commit.reveal_call, Weights(commit.uids, commit.values), commit.version_key)
    done = await sender.send(view, plan.call, keypair)
    await require_held(sender, view, done, plan, commit.netuid, uid)
    return done


async def _at(view: View, netuid: int, commits: Sequence[HashedCommit], clock: Clock) -> KeptCommitsAt:
    metagraph = await view.metagraph(netuid, clock.monotonic())
    statuses = [await _status(view, metagraph.parameters, commit) for commit in commits]
    return KeptCommitsAt(view.head.number, metagraph, statuses)


async def _status(view: View, parameters: SubnetParameters, commit: HashedCommit) -> CommitStatus:
    at = await hashed_weights.committed_at(view, commit)
    window = None if at is None else hashed_weights.window_of(commit, at, parameters)
    stage = hashed_weights.stage(window, commit.signed_at_block, view.head.number)
    wait_blocks = 0 if window is None else max(0, window.first_block - view.head.number - 1)
    return CommitStatus(commit, stage, window, wait_blocks)
