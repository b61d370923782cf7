"""The node's ends of the two pipes to its index worker.

What is asked within one pass of the loop is written together, and neither writing nor reading yields but to wait for
the pipe: trio's own streams yield in every call, which makes a search cost the node a twelfth more.
"""

from __future__ import annotations

import os
from typing import Final, final

import trio

_READ_BYTES: Final = 262_144
_WRITE_BYTES: Final = 65_536
"""What an empty pipe takes."""


@final
class Outlet:
    """Writes frames in the order in which they were given. Keep `run` running, and `close` it after that has ended."""

    def __init__(self, descriptor: int) -> None:
        """Takes the descriptor over; everybody who shares its open file no longer waits at it."""
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._behind = bytearray()
        self._late = trio.Event()

    def write(self, frame: bytes) -> None:
        """Has `run` write it, with what else is asked in this pass of the loop."""
        self._behind += frame
        self._late.set()

    async def run(self) -> None:
        """Writes what `write` has left, for ever."""
        while True:
            await self._late.wait()
            self._late = trio.Event()
            while self._behind:
                del self._behind[: self._written(self._behind[:_WRITE_BYTES])]
                if self._behind:
                    await trio.lowlevel.wait_writable(self._descriptor)

    def close(self) -> None:
        """The reader finds the end after what was written."""
        os.close(self._descriptor)

    def _written(self, content: bytes | bytearray) -> int:
        try:
            return os.write(self._descriptor, content)
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            return len(content)


@final
class Inlet:
    """Reads what there is. `close` it when nobody reads."""

    def __init__(self, descriptor: int) -> None:
        """Takes the descriptor over, as Outlet does."""
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    async def read(self) -> bytes:
        """Waits for the next bytes; empty at the end."""
        while True:
            await trio.lowlevel.wait_readable(self._descriptor)
            try:
                return os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                continue

    def close(self) -> None:
        """The writer finds nobody reading."""
        os.close(self._descriptor)
