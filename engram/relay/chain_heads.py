"""The finality guard over the chain's own endpoints: asked before a payload leaves, and remembered for 2 s.

Whether a block is final, and which one it is, says one endpoint, or a lagging one would have a payload withdrawn. How
deep it is says the best head that the syncer keeps, or that endpoint where that one is too old.
"""

from collections.abc import Callable, Sequence
from typing import Final, final

import structlog

from config.model import ChainSettings
from engram.chain.errors import TRANSIENT, ChainError
from engram.chain.read.node import ChainEndpoint
from engram.chain.read.queries import read_best, read_finalized, read_hash_at
from engram.chain.sync.subnets import Subnets
from engram.clock import Clock
from engram.relay.finality import DEPTH, Finality, judge

REMEMBER_S: Final = 2.0
"""No longer than the emitter waits between its looks: a block that became final is seen by the next one."""

_log = structlog.get_logger(__name__)


@final
class ChainHeads:
    """A FinalityGuard. The first endpoint that answers is believed: payloads are checked again by their receiver."""

    def __init__(
        self,
        nodes: Sequence[ChainEndpoint],
        clock: Clock,
        depth: int = DEPTH,
        synced: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Take how the number of the best head is had that the syncer keeps; None while it has read none."""
        self._synced = synced
        self._nodes = nodes
        self._clock = clock
        self._depth = depth
        self._heads: tuple[int, int] | None = None
        """Numbers of the finalized and of the best head."""
        self._read_at_s = 0.0

    async def __call__(self, block: int, block_hash: bytes | None) -> Finality:
        """Return what is known of the block now; AWAITED when no endpoint answers."""
        for node in self._nodes:
            try:
                finalized, best = await self._read(node, block + self._depth)
                is_deep = block <= finalized and block + self._depth <= best
                hash_now = await read_hash_at(node, block) if is_deep and block_hash is not None else None
            except (ChainError, *TRANSIENT) as error:
                self._heads = None
                _log.debug("finality_not_read", endpoint=node.name, reason=str(error))
                continue
            return judge(block, block_hash, finalized=finalized, best=best, hash_now=hash_now, depth=self._depth)
        return Finality.AWAITED

    async def _read(self, node: ChainEndpoint, wanted: int) -> tuple[int, int]:
        now_s = self._clock.monotonic()
        if self._heads is None or now_s - self._read_at_s >= REMEMBER_S:
            finalized, best = (await read_finalized(node)).number, self._synced() or 0
            self._heads = finalized, best if best >= wanted else await read_best(node)
            self._read_at_s = now_s
        return self._heads


def guard_of(
    settings: ChainSettings, nodes: Sequence[ChainEndpoint], clock: Clock, depth: int, subnets: Subnets
) -> ChainHeads | None:
    """Return the guard for these settings; None for the recorded chain, whose head never moves."""
    return None if settings.source == "recorded" else ChainHeads(nodes, clock, depth, lambda: subnets.best)
