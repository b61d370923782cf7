"""What a vector index must do. The index holds nothing that the truth does not, and can always be built from it."""

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
    """The record as the truth had it after the vector was found; None where the index has not read it."""


class Index(Protocol):
    """Nearest vectors by cosine. Public and private vectors never share a shard."""

    async def run(self, ready: Callable[[int], None]) -> None:
        """Runs the index until cancelled.

        Calls `ready(flushed)` when it can be used: everything up to change `flushed` of this truth is
        safely in it. Raises IndexUnavailable when it dies.
        """
        ...

    async def apply(self, changes: Sequence[Change], sequence: int) -> int:
        """Makes changes, which end at `sequence`; making one again is harmless.

        Returns the last change that is safely on disk. Raises IndexUnavailable.
        """
        ...

    async def reset(self) -> None:
        """Throws all vectors away. Raises IndexUnavailable."""
        ...

    async def points(self) -> int:
        """Returns how many vectors there are. Raises IndexUnavailable."""
        ...

    async def search(
        self, namespace: str, vector: bytes, limit: int, conditions: Filter, give_up_at: float
    ) -> list[Match]:
        """Returns the `limit` nearest of one namespace whose metadata meet `conditions`, best first: what does not is
        left out before the nearest are chosen, not after.

        An index that reads the truth itself leaves out what is not there in that namespace, and looks further for as
        many.

        Raises IndexUnavailable, also soon after `give_up_at` on trio's clock; IndexRestarting when it can be asked
        again.
        """
        ...
