"""Who held a validator permit at a block that was not recorded, read from the chain while it can be."""

from collections.abc import Awaitable, Callable, Collection
from functools import partial

import structlog

from engram.chain.read.view import View
from engram.hotkeys import PublicKey
from engram.xeris.chain_views import ChainViews, NotReadable

ReadsPermits = Callable[[int, int], Awaitable[frozenset[PublicKey] | None]]
"""(netuid, block) -> the keys with a validator permit at that finalized block; None while they cannot be known."""

_log = structlog.get_logger("engram.xeris")


def chain_permits(views: ChainViews, netuids: Collection[int]) -> ReadsPermits:
    """Return a reader of permits from the chain, for these subnets alone."""

    async def read(netuid: int, block: int) -> frozenset[PublicKey] | None:
        if netuid not in netuids:
            return None
        try:
            return await views.read(block, partial(_holders, netuid))
        except NotReadable as error:
            _log.info("permits_not_read", netuid=netuid, block=block, reason=str(error))
            return None

    return read


async def _holders(netuid: int, view: View) -> frozenset[PublicKey]:
    metagraph = await view.metagraph(netuid, 0.0)
    return frozenset(neuron.hotkey for neuron in metagraph.neurons if neuron.validator_permit)
