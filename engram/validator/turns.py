"""Turns of miners: so many at once, and none that is slow keeps the others from theirs."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, final

import trio

HOLD_S: Final = 2.0
"""How long a turn counts at most. Whoever takes longer goes on, but the next one's turn begins."""


@final
class Turns:
    """Hands out turns, `at_once` of which begin together."""

    def __init__(self, nursery: trio.Nursery, at_once: int) -> None:
        """Take the nursery that those who take turns run in."""
        self._nursery = nursery
        self._room = trio.CapacityLimiter(at_once)

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for a turn, and hold it until the block ends or HOLD_S have passed."""
        holder = object()
        await self._room.acquire_on_behalf_of(holder)
        held = trio.CancelScope()
        self._nursery.start_soon(self._hold, holder, held)
        try:
            yield
        finally:
            held.cancel()

    async def _hold(self, holder: object, held: trio.CancelScope) -> None:
        with held:
            try:
                await trio.sleep(HOLD_S)
            finally:
                self._room.release_on_behalf_of(holder)
