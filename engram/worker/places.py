"""Places for running jobs: so many at once, and nobody waits for one any more when the worker stops."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import trio


@final
class JobPlaces:
    """The places of one worker."""

    def __init__(self, count: int) -> None:
        self._free = trio.Semaphore(count)
        self._waits: set[trio.CancelScope] = set()
        self.closed = False
        """Whether the worker stops: waits have ended, and none begins."""

    def take_now(self) -> bool:
        """Take a place if one is free."""
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            return False
        return True

    async def take(self) -> bool:
        """Wait for a place; return False when the worker stops meanwhile."""
        if self.closed:
            return False
        if self.take_now():
            return True
        with self.ended_by_close() as wait:
            await self._free.acquire()
        return not wait.cancelled_caught

    def give_back(self) -> None:
        """Give a place back."""
        self._free.release()

    def close(self) -> None:
        """End all waits; places that are taken stay so until they are given back."""
        self.closed = True
        for wait in self._waits:
            wait.cancel()

    @contextmanager
    def ended_by_close(self) -> Iterator[trio.CancelScope]:
        """Go on after the block, which is cut off, when the worker stops."""
        with trio.CancelScope() as wait:
            self._waits.add(wait)
            try:
                yield wait
            finally:
                self._waits.discard(wait)
