"""Who held a validator permit at the block of a proposal: a receiver asks for no other block, and permits change."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, final

import structlog

from engram.chain.errors import TRANSIENT, ChainError
from engram.chain.read.node import ChainEndpoint
from engram.chain.read.queries import read_hash_at
from engram.chain.read.view import open_view, view_at
from engram.hotkeys import PublicKey
from engram.relay.quorum.subnet_now import subnet_of

HoldersAt = Callable[[int], Awaitable[frozenset[PublicKey] | None]]
"""A final block -> the keys that held a permit at it; None where that cannot be known: those of now count then."""
REMEMBERED: Final = 64

_log = structlog.get_logger("engram.relay")


async def holders_unknown(_: int) -> None:
    """Return None: there is no chain to ask."""
    return


@final
class PermitsThen:
    """A HoldersAt over the chain's endpoints. What was read of a final block is remembered."""

    def __init__(self, nodes: Sequence[ChainEndpoint], netuid: int) -> None:
        self._nodes = nodes
        self._netuid = netuid
        self._known: dict[int, frozenset[PublicKey]] = {}

    async def __call__(self, block: int) -> frozenset[PublicKey] | None:
        """Return who held a permit at a final block."""
        if block not in self._known:
            try:
                self._known[block] = await self._read(block)
            except (ChainError, *TRANSIENT) as error:
                _log.info("permits_not_read", block=block, reason=str(error))
                return None
            if len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
        return self._known[block]

    async def _read(self, block: int) -> frozenset[PublicKey]:
        head = await open_view(self._nodes)
        view = head
        if block != head.head.number and (block_hash := await read_hash_at(head.node, block)) is not None:
            view = await view_at(head.node, block_hash, head, [node for node in self._nodes if node is not head.node])
        return frozenset(subnet_of(await view.metagraph(self._netuid, 0.0)).holders)
