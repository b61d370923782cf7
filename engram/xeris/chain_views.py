"""The chain at a block that a payload names, by the chain's endpoints, else by those that keep every block's state.

Light nodes forget the state of a block after 256 others. What a payload makes the receiver read is bounded: anybody can
sign one, of any block.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar, final

import structlog
import trio

from engram.chain.errors import ChainError
from engram.chain.read.node import ChainEndpoint
from engram.chain.read.queries import read_hash_at
from engram.chain.read.view import View, open_view, view_at

T = TypeVar("T")

READS_AT_ONCE: Final = 4
READ_S: Final = 30.0
"""For one reading, all endpoints together."""

_log = structlog.get_logger("engram.xeris")


class NotReadable(Exception):
    """The block cannot be read now; the text says why."""


@final
class ChainViews:
    """Reads single blocks, READS_AT_ONCE at a time: one of these for each thing that is read."""

    def __init__(self, nodes: Sequence[ChainEndpoint], archive: Sequence[ChainEndpoint] = ()) -> None:
        self._sources = [source for source in (nodes, archive) if source]
        self._room = trio.CapacityLimiter(READS_AT_ONCE)

    async def head(self) -> int:
        """Return the newest finalized block by any endpoint of the chain; 0 while none answers or too much is read."""

        async def number(view: View) -> int:
            return view.head.number

        try:
            return await self.read(0, number, number)
        except NotReadable:
            return 0

    async def read(
        self,
        block: int,
        query: Callable[[View], Awaitable[T]],
        at_head: Callable[[View], Awaitable[T | None]] | None = None,
    ) -> T:
        """Return what `query` reads at the block, or `at_head` at the finalized head where that is enough to know it.

        Raises NotReadable while the block is not final, when no endpoint has it, and when too much is read already.
        """
        try:
            self._room.acquire_on_behalf_of_nowait(reading := object())
        except trio.WouldBlock:
            raise NotReadable(f"{READS_AT_ONCE} blocks are being read already") from None
        try:
            with trio.fail_after(READ_S):
                return await self._read(block, query, at_head)
        except trio.TooSlowError:
            raise NotReadable(f"block {block} could not be read within {READ_S:.0f} s") from None
        finally:
            self._room.release_on_behalf_of(reading)

    async def _read(
        self,
        block: int,
        query: Callable[[View], Awaitable[T]],
        at_head: Callable[[View], Awaitable[T | None]] | None,
    ) -> T:
        reason = "there is no endpoint of the chain"
        for nodes in self._sources:
            try:
                head = await open_view(nodes)
                found = None if at_head is None else await at_head(head)
                return await query(await _at(nodes, head, block)) if found is None else found
            except ChainError as error:
                reason = str(error)
                _log.info("block_not_read", block=block, reason=reason)
        raise NotReadable(reason)


async def _at(nodes: Sequence[ChainEndpoint], head: View, block: int) -> View:
    if block > head.head.number:
        raise NotReadable(f"block {block} is not final yet")
    if block == head.head.number:
        return head
    block_hash = await read_hash_at(head.node, block)
    if block_hash is None:
        raise NotReadable(f"block {block} is not known to the chain's endpoint")
    return await view_at(head.node, block_hash, head, [node for node in nodes if node is not head.node])
