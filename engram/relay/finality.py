"""Whether a payload's block is final enough to be spoken of: on the finalized chain, and deep below the best head."""

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Final, final

DEPTH: Final = 3
"""Blocks that must stand above a payload's block at the best head (`relay.confirmations`)."""


class Finality(Enum):
    """What is known of a block."""

    FINAL = "final"
    AWAITED = "awaited"
    REORGANIZED = "reorganized"
    """Another block of this number became final."""


FinalityGuard = Callable[[int, bytes | None], Awaitable[Finality]]
"""(block, its hash when the payload was learned, or None where that is not known) -> what is known of it now.

AWAITED when the chain cannot be asked: nothing is sent on a guess."""


@final
class FinalBlocks:
    """The blocks that were found final most lately. They stay final, and are not asked for again."""

    def __init__(self, most: int = 4_096) -> None:
        self._most = most
        self._found: dict[tuple[int, bytes | None], None] = {}

    def add(self, block: int, block_hash: bytes | None) -> None:
        """Note a block as final; the one that was noted first is forgotten for it."""
        self._found[block, block_hash] = None
        if len(self._found) > self._most:
            del self._found[next(iter(self._found))]

    def holds(self, block: int, block_hash: bytes | None) -> bool:
        """Return whether the block, of this very hash, was found final."""
        return (block, block_hash) in self._found


def judge(
    block: int,
    block_hash: bytes | None,
    *,
    finalized: int | None,
    best: int | None,
    hash_now: bytes | None,
    depth: int = DEPTH,
) -> Finality:
    """Return what is known of a block.

    `finalized` and `best` are the numbers of the chain's heads, `hash_now` the hash of the finalized block of this
    number; each None while it is not known.
    """
    if finalized is None or best is None or block > finalized or block + depth > best:
        return Finality.AWAITED
    if block_hash is None:
        return Finality.FINAL
    if hash_now is None:
        return Finality.AWAITED
    return Finality.FINAL if hash_now == block_hash else Finality.REORGANIZED
