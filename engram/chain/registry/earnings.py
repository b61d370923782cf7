"""What a hotkey earned at an earlier block, beside what it earns now: the change that a miner watches."""

from typing import Final

import msgspec

from engram.chain.errors import AnswersDiffer, ChainError
from engram.chain.model import MECHANISM_MAX_U16, Metagraph
from engram.chain.read.view import View
from engram.hotkeys import PublicKey

ARCHIVE: Final = "--network archive has old blocks"


class EarningsChange(msgspec.Struct, frozen=True):
    """Incentive and emission now, less what they were at an earlier block; None with the reason."""

    since_block: int | None = None
    incentive: float | None = None
    emission_rao: int | None = None
    unknown_because: str | None = None


def last_epoch_before(metagraph: Metagraph) -> int:
    """Return the last block before the chain ran the subnet's last epoch, where incentives had their old values."""
    return metagraph.last_epoch_block - 1


async def earnings_change(view: View, metagraph: Metagraph, hotkey: PublicKey, since: int | None) -> EarningsChange:
    """Return the change from block `since`, or from before the last epoch where it is None, to the view's block.

    Raises AnswersDiffer. An endpoint that has no state of the earlier block is a reason.
    """
    number = last_epoch_before(metagraph) if since is None else since
    now = metagraph.neuron(hotkey)
    if now is None:
        return EarningsChange(unknown_because="the hotkey is not registered")
    if since is None and number < 1:
        return EarningsChange(unknown_because="the subnet has run no epoch yet")
    if number >= metagraph.block:
        return EarningsChange(unknown_because=f"block {number} is not before block {metagraph.block}")
    try:
        earlier = await (await view.earlier(number)).metagraph(metagraph.netuid, metagraph.read_at_s)
    except AnswersDiffer:
        raise
    except ChainError as error:
        return EarningsChange(number, unknown_because=f"block {number} was not read: {error} ({ARCHIVE})")
    then = earlier.neuron(hotkey)
    if then is None:
        return EarningsChange(number, unknown_because=f"the hotkey was not registered at block {number}")
    return EarningsChange(
        number,
        round((now.incentive_u16 - then.incentive_u16) / MECHANISM_MAX_U16, 6),
        now.emission_rao - then.emission_rao,
    )
