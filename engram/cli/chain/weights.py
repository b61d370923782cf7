"""`engram subnet set-weights` and `reveal-weights`: what is sent, shown, and waited for."""

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from engram import wire
from engram.chain.read.node import ChainEndpoint
from engram.chain.read.view import open_view
from engram.chain.submit import hashed_weights, reveal
from engram.chain.submit.hashed_weights import HashedCommit
from engram.chain.submit.kept_commits import KeptCommits
from engram.chain.submit.reveal import CommitStatus, KeptCommitsAt
from engram.chain.submit.set_weights import WeightsProposal, propose, set_weights
from engram.chain.submit.submit_extrinsic import Included
from engram.chain.submit.weights import reveal_about_s
from engram.cli.chain.common import ChainOptions, PublicHotkey
from engram.cli.chain.endpoints import endpoints, sender
from engram.cli.chain.subnet_calls import Sent, included
from engram.cli.output import Progress, duration, moment
from engram.clock import Clock, SystemClock
from engram.hotkeys import Keypair


class KeptCommit(msgspec.Struct, frozen=True, omit_defaults=True):
    """A kept commit as it is shown."""

    commit_hash: str
    file: str
    stage: str
    uids: tuple[int, ...]
    values: tuple[int, ...]
    reveal_from_block: int | None = None
    reveal_until_block: int | None = None
    wait_blocks: int = 0
    revealed_in_block: int | None = None
    extrinsic_hash: str | None = None


class Reveals(msgspec.Struct, frozen=True):
    """All kept commits of one hotkey, the oldest first."""

    netuid: int
    block: int
    online: bool
    commits: list[KeptCommit]


async def weigh(
    chain: ChainOptions,
    keypair: Keypair | PublicHotkey,
    given: dict[int, float],
    version_key: int | None,
    online: bool,
    patience_s: float,
    folder: Path,
    *,
    follow: bool = False,
) -> Sent:
    """Set or commit the weights; without `online` return what would be sent.

    `follow` waits until the chain has revealed what was committed under a timelock.
    """
    clock, kept = SystemClock(), KeptCommits(folder)
    async with endpoints(chain) as nodes:
        view = await open_view(nodes)
        proposal = await propose(view, chain.netuid, keypair.public_key, given, version_key, clock)
        sent = _proposed(proposal, keypair.ss58, online, kept)
        if not online:
            return sent
        assert isinstance(keypair, Keypair)
        done = await set_weights(sender(chain, nodes, patience_s), view, proposal, keypair, kept)
        if proposal.plan.hashed is not None:
            shown = _by_hash(proposal.plan.hashed, proposal, kept, done.block.number)
            sent = msgspec.structs.replace(sent, arguments=sent.arguments | shown)
        if follow and proposal.plan.reveal_round is not None:
            revealed = await _follow(nodes, proposal, sent, done, clock)
            sent = msgspec.structs.replace(sent, revealed_by_block=revealed)
    return included(sent, done)


async def reveal_commits(
    chain: ChainOptions, keypair: Keypair | PublicHotkey, folder: Path, *, online: bool, wait: bool, patience_s: float
) -> Reveals:
    """Reveal the commits whose window is open, or show what would be; `wait` until the first window opens."""
    clock, kept = SystemClock(), KeptCommits(folder)
    async with endpoints(chain) as nodes:
        found = await reveal.read_commits(nodes, chain.netuid, keypair.public_key, kept, clock)
        for reason in kept.unusable(chain.netuid):
            sys.stderr.write(f"left out: {reason}\n")
        if wait:
            with Progress() as progress:
                found = await reveal.until_open(nodes, found, clock, lambda now: progress.show(_waiting(now)))
        if online:
            assert isinstance(keypair, Keypair)
            found = await reveal.reveal(sender(chain, nodes, patience_s), found, keypair, kept)
    return Reveals(chain.netuid, found.block, online, [_shown(status, kept) for status in found.statuses])


def in_words(sent: Sent, done: Included | None = None) -> str:
    """Return one line about the weights that were sent; `done` is the block that includes them."""
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


async def _follow(
    nodes: Sequence[ChainEndpoint], proposal: WeightsProposal, sent: Sent, done: Included, clock: Clock
) -> int:
    plan, parameters = proposal.plan, proposal.metagraph.parameters
    assert plan.reveal_round is not None
    assert proposal.uid is not None
    about_s = reveal_about_s(plan.reveal_round)
    waiting_s = reveal.patience_s(plan.reveal_round, parameters, clock.now())
    bound = f"waiting for it, for {duration(waiting_s)} at most (Ctrl-C ends only the waiting)"
    sys.stderr.write(f"{in_words(sent, done)}; {bound}\n")
    with Progress() as progress:

        def show(block: int) -> None:
            left = duration(max(0.0, about_s - clock.now()))
            progress.show(f"block {block}: committed, to be revealed about {moment(about_s)}, in {left}")

        return await reveal.until_revealed(nodes, plan, done, sent.netuid, proposal.uid, waiting_s, show)


def _proposed(proposal: WeightsProposal, signer: str, online: bool, kept: KeptCommits) -> Sent:
    plan = proposal.plan
    arguments: dict[str, object] = {
        "uids": list(plan.weights.uids),
        "weights": list(plan.weights.values),
        "version_key": plan.version_key,
    }
    if plan.reveal_round is not None:
        about_s = reveal_about_s(plan.reveal_round)
        arguments |= {"reveal_round": plan.reveal_round, "revealed_about": moment(about_s)}
    if plan.hashed is not None:
        arguments |= _by_hash(plan.hashed, proposal, kept, None)
    return Sent(
        call=f"{plan.call.pallet}.{plan.call.function}",
        signer=signer,
        netuid=proposal.metagraph.netuid,
        online=online,
        arguments=arguments,
        uid=proposal.uid,
        objections=proposal.objections,
    )


def _by_hash(
    commit: HashedCommit, proposal: WeightsProposal, kept: KeptCommits, block: int | None
) -> dict[str, object]:
    """Return the window of a commit in this block, and its file. `block` None: not sent, so its salt is not final."""
    metagraph = proposal.metagraph
    window = hashed_weights.window_of(commit, metagraph.block + 1 if block is None else block, metagraph.parameters)
    shown: dict[str, object] = {"reveal_from_block": window.first_block, "reveal_until_block": window.last_block}
    if block is not None:
        shown |= {"commit_hash": "0x" + commit.hash.hex(), "kept_in": str(kept.path(commit))}
    return shown


def _waiting(found: KeptCommitsAt) -> str:
    return f"block {found.block}: committed, to be revealed in {found.wait_blocks} blocks"


def _shown(status: CommitStatus, kept: KeptCommits) -> KeptCommit:
    commit, window, done = status.commit, status.window, status.revealed
    return KeptCommit(
        commit_hash="0x" + commit.hash.hex(),
        file=str(kept.path(commit)),
        stage=status.stage.value if done is None else "revealed",
        uids=commit.uids,
        values=commit.values,
        reveal_from_block=None if window is None else window.first_block,
        reveal_until_block=None if window is None else window.last_block,
        wait_blocks=status.wait_blocks,
        revealed_in_block=None if done is None else done.block.number,
        extrinsic_hash=None if done is None else "0x" + done.extrinsic_hash.hex(),
    )
