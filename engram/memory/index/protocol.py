"""What a vector index must do. It holds nothing that the truth does not, so it can always be rebuilt from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from engram.memory.filters import Filter
from engram.memory.model import Change, Excerpt


class Match(msgspec.Struct, frozen=True, array_like=True):
    """A vector that an index found; `score` is the cosine."""

    id: int
    score: float
    record: Excerpt | None = None
    """The record as the truth had it after the search; None when the index does not read records."""


class Nearest(msgspec.Struct, frozen=True):
    """What a search of an index found, best first; `is_cut`: it gave up before it had as many as were asked for."""

    matches: list[Match]
    is_cut: bool = False


class Index(Protocol):
    """Nearest vectors by cosine. Public and private vectors never share a shard."""

    async def run(self, ready: Callable[[int], None]) -> None:
        """Run the index until cancelled.

        Calls `ready(flushed)` once it can be used: it has everything up to change `flushed` of this truth on disk.
        Raises IndexUnavailable when it dies.
        """
        ...

    async def apply(self, changes: Sequence[Change], sequence: int) -> int:
        """Apply changes, the last of which is `sequence`; applying one again is harmless.

        Returns the last change that is safely on disk. Raises IndexUnavailable.
        """
        ...

    async def reset(self) -> None:
        """Delete all vectors. Raises IndexUnavailable."""
        ...

    async def points(self) -> int:
        """Return how many vectors there are. Raises IndexUnavailable."""
        ...

    async def search(self, namespace: str, vector: bytes, limit: int, conditions: Filter, give_up_at: float) -> Nearest:
        """Return the `limit` nearest vectors of one namespace whose metadata meet `conditions`, best first.

        Conditions are applied before the nearest are chosen, not after. An index that reads the truth itself skips
        vectors whose records are gone and looks further to find as many.

        Raises IndexUnavailable, also soon after `give_up_at` on trio's clock; IndexRestarting when a retry may succeed.
        """
        ...
