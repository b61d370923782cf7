"""Committing weights by hash and revealing them: what is kept on disk in between, and when it may go."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import trio

from engram.chain.errors import (
    AnswerMalformed,
    AnswersDiffer,
    CallRefused,
    EndpointBusy,
    EndpointUnreachable,
    HeadAwaited,
    RefusedInBlock,
    SubmitRefused,
)
from engram.chain.model import Metagraph
from engram.chain.read.node import Node
from engram.chain.read.view import View, open_view
from engram.chain.submit import hashed_weights
from engram.chain.submit.hashed_weights import HashedCommit, Stage, Window
from engram.chain.submit.kept_commits import KeptCommits
from engram.chain.submit.submit_extrinsic import Included
from engram.chain.submit.weights import BLOCK_S, Weights, WeightsPlan, stands
from engram.cli.chain.common import Chain, PublicHotkey
from engram.cli.chain.endpoints import endpoints, read_back, send
from engram.cli.failures import CommandFailed
from engram.cli.output import Progress
from engram.clock import SystemClock
from engram.hotkeys import Keypair

NOT_WRITTEN: Final = (SubmitRefused, RefusedInBlock)
"""After these nothing will come of a commit, and what opens it may go. After all else it is kept."""
PASSING: Final = (
    EndpointBusy,
    EndpointUnreachable,
    AnswerMalformed,
    AnswersDiffer,
    CallRefused,
    HeadAwaited,
)
"""What an endpoint may answer once in the hours of waiting."""


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """A commit that was kept, and what became of it."""

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
    """All that is kept of one hotkey, the oldest first."""

    netuid: int
    block: int
    online: bool
    commits: list[Kept]


def committed(commit: HashedCommit, metagraph: Metagraph, folder: Path, block: int | None = None) -> dict[str, object]:
    """What is told of a commit beside its weights. `block` holds it; None: it is not sent, and would be salted anew."""
    parameters = metagraph.parameters
    opens = hashed_weights.window(
        metagraph.block + 1 if block is None else block,
        commit.netuid,
        parameters.tempo,
        parameters.commit_reveal_period_tempos,
    )
    told: dict[str, object] = {"reveal_from_block": opens.first_block, "reveal_until_block": opens.last_block}
    if block is None:
        return told
    return told | {"commit_hash": "0x" + commit.hash.hex(), "kept_in": str(KeptCommits(folder).path(commit))}


async def commit_by_hash(
    chain: Chain,
    view: View,
    nodes: Sequence[Node],
    planned: WeightsPlan,
    keypair: Keypair,
    patience_s: float,
    folder: Path,
) -> Included:
    """Send a commit whose salt is on disk before it leaves. Raises as `send`, KeptCommitError."""
    assert planned.hashed is not None
    kept = KeptCommits(folder)
    kept.keep(planned.hashed)
    try:
        return await send(chain, view, nodes, planned.call, keypair, patience_s)
    except NOT_WRITTEN:
        kept.forget(planned.hashed)
        raise
    except (EndpointUnreachable, EndpointBusy) as error:
        if not error.may_have_arrived:
            kept.forget(planned.hashed)
        raise


async def reveal(
    chain: Chain, keypair: Keypair | PublicHotkey, folder: Path, *, online: bool, wait: bool, patience_s: float
) -> Reveals:
    """Reveal what may be revealed now, the oldest first, or show what would be; `wait` until the first may."""
    kept = KeptCommits(folder)
    async with endpoints(chain) as nodes:
        view = await open_view(nodes)
        genesis = await hashed_weights.read_genesis(view.node)
        commits = kept.of(genesis, chain.netuid, keypair.public_key)
        if not commits:
            raise CommandFailed(f"no commit of {keypair.ss58} on subnet {chain.netuid} is kept in {folder}")
        metagraph = await view.metagraph(chain.netuid, SystemClock().monotonic())
        found = [await _kept(view, metagraph, kept, commit) for commit in commits]
        progress = Progress()
        while wait and _only_later({one.stage for one in found}):
            blocks = min(one.wait_blocks for one in found if one.stage in (Stage.WAITING.value, Stage.UNSEEN.value))
            progress.show(f"block {view.head.number}: committed, to be revealed in {blocks} blocks")
            await trio.sleep(BLOCK_S)
            try:
                view = await open_view(nodes)
                metagraph = await view.metagraph(chain.netuid, SystemClock().monotonic())
                found = [await _kept(view, metagraph, kept, commit) for commit in commits]
            except PASSING:
                continue  # Hours may pass until the window: one bad answer in them is nothing.
        progress.end()
        if online:
            assert isinstance(keypair, Keypair)
            neuron = metagraph.neuron(keypair.public_key)
            if neuron is None:
                raise CommandFailed(f"not sent: {keypair.ss58} is not registered on subnet {chain.netuid}")
            for place, (commit, one) in enumerate(zip(commits, found, strict=True)):
                if one.stage == Stage.OPEN.value:
                    done = await _revealed(chain, nodes, commit, keypair, neuron.uid, patience_s)
                    found[place] = msgspec.structs.replace(
                        one,
                        stage="revealed",
                        revealed_in_block=done.block.number,
                        extrinsic_hash="0x" + done.extrinsic_hash.hex(),
                    )
                if one.stage in (Stage.OPEN.value, Stage.EXPIRED.value, Stage.GONE.value):
                    kept.forget(commit)
    return Reveals(chain.netuid, view.head.number, online, found)


def _only_later(stages: set[str]) -> bool:
    """Whether nothing can be revealed now, and something may be later."""
    return Stage.OPEN.value not in stages and not stages.isdisjoint({Stage.WAITING.value, Stage.UNSEEN.value})


async def _kept(view: View, metagraph: Metagraph, kept: KeptCommits, commit: HashedCommit) -> Kept:
    at = await hashed_weights.committed_at(view, commit)
    opens: Window | None = None
    if at is not None:
        parameters = metagraph.parameters
        opens = hashed_weights.window(at, commit.netuid, parameters.tempo, parameters.commit_reveal_period_tempos)
    stage = hashed_weights.stage(opens, commit.signed_at_block, view.head.number)
    return Kept(
        commit_hash="0x" + commit.hash.hex(),
        file=str(kept.path(commit)),
        stage=stage.value,
        uids=commit.uids,
        values=commit.values,
        reveal_from_block=None if opens is None else opens.first_block,
        reveal_until_block=None if opens is None else opens.last_block,
        wait_blocks=0 if opens is None else max(0, opens.first_block - view.head.number - 1),
    )


async def _revealed(
    chain: Chain, nodes: Sequence[Node], commit: HashedCommit, keypair: Keypair, uid: int, patience_s: float
) -> Included:
    view = await open_view(nodes)  # Each reveal is signed at a head of its own.
    call = commit.reveal_call
    done = await send(chain, view, nodes, call, keypair, patience_s)
    sent = WeightsPlan(call, Weights(commit.uids, commit.values), commit.version_key)
    if not await read_back(view, nodes, done, lambda there: stands(there, sent, chain.netuid, uid)):
        raise CommandFailed(f"included in block {done.block.number}, but the chain does not hold these weights")
    return done
