"""`set-weights --follow`: waits until weights that were committed under a timelock are revealed by the chain."""

from collections.abc import Sequence
from typing import Final

import trio

from engram.chain.model import SubnetParameters
from engram.chain.read.node import Node
from engram.chain.read.view import open_view
from engram.chain.submit.submit_extrinsic import Included
from engram.chain.submit.weights import BLOCK_S, Revealing, WeightsPlan, read_revealing, reveal_about_s
from engram.cli.chain.revealing import PASSING
from engram.cli.failures import CommandFailed, Exit
from engram.cli.output import Progress, duration, moment
from engram.clock import Clock

MARGIN_S: Final = 600.0
"""A chain whose blocks come late reveals late."""


def patience_s(reveal_round: int, parameters: SubnetParameters, now_s: float) -> float:
    """How long a reveal is waited for: until it is expected, and one tempo and MARGIN_S more."""
    return max(0.0, reveal_about_s(reveal_round) - now_s) + parameters.tempo * BLOCK_S + MARGIN_S


async def until_revealed(
    nodes: Sequence[Node], planned: WeightsPlan, done: Included, netuid: int, uid: int, waiting_s: float, clock: Clock
) -> int:
    """Return the number of the finalized block in which the weights were seen; looks once a block.

    Raises CommandFailed: when the chain has dropped the commit, and, as not known, after `waiting_s` seconds.
    """
    assert planned.reveal_round is not None
    about, seen = moment(reveal_about_s(planned.reveal_round)), done.block.number
    with Progress() as progress, trio.move_on_after(waiting_s):
        while True:
            left_s = max(0.0, reveal_about_s(planned.reveal_round) - clock.now())
            progress.show(f"block {seen}: committed, to be revealed about {about}, in {duration(left_s)}")
            await trio.sleep(BLOCK_S)
            try:
                view = await open_view(nodes)
                if view.head.number <= done.block.number:
                    continue
                found = await read_revealing(view, planned, netuid, uid)
            except PASSING:
                continue
            seen = view.head.number
            if found is Revealing.REVEALED:
                return seen
            if found is Revealing.DROPPED:
                raise CommandFailed(
                    f"committed in block {done.block.number}, but at block {seen} the chain holds neither the commit "
                    "nor these weights: the reveal failed, or other weights were set since (engram subnet status)"
                )
    raise CommandFailed(
        f"committed in block {done.block.number}, and not yet revealed at block {seen}, though it was expected about "
        f"{about}: the chain may still do it (engram subnet status tells the last update)",
        Exit.UNKNOWN,
    )
