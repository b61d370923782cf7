"""Gives memory back that jobs have left behind, without ever holding the loop or an answer."""

from collections.abc import Callable
from typing import final

import trio


@final
class MemoryRelease:
    """One release at a time, in a thread; those that are wanted meanwhile become one more.

    A driver that hangs keeps that thread, and nothing else.
    """

    def __init__(self, release: Callable[[], None]) -> None:
        """Take `release`, which may block and raises nothing."""
        self._release = release
        self._wanted = trio.Event()

    def ask(self) -> None:
        """Release soon."""
        self._wanted.set()

    async def run(self) -> None:
        """Release whenever it is asked for, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            await trio.to_thread.run_sync(self._release, abandon_on_cancel=True)
