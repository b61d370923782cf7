"""Wakes event streams when their session has changed.

Each stream holds a flag and no queue: it reads the changes from the ledger itself, starting at the last event that its
reader received. A slow reader therefore uses no memory, and a lost hint costs at most one polling interval.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, final

import structlog
import trio

from actors import Context
from engram.ledger import Ledger, LedgerError
from engram.sessions import history

REREAD_S: Final = 1.0
STREAMS_PER_READER: Final = 16
"""Open streams of one hotkey."""


_log = structlog.get_logger(__name__)


class StreamsFull(Exception):
    """This reader has the maximum number of event streams open."""


@final
class FeedSubscription:
    """One open stream's flag."""

    __slots__ = ("_woken",)

    def __init__(self) -> None:
        self._woken = trio.Event()

    def wake(self) -> None:
        """Set the flag. Several wakes before the stream looks count as one."""
        self._woken.set()

    async def changed(self) -> None:
        """Wait until the session may have changed since the last call."""
        await self._woken.wait()
        self._woken = trio.Event()


@final
class EventFeed:
    """All open event streams of this process."""

    def __init__(self, ledger: Ledger, *, per_reader: int = STREAMS_PER_READER) -> None:
        """Allow at most `per_reader` streams of one reader; the HTTP server bounds their total."""
        self._ledger = ledger
        self._per_reader = per_reader
        self._open: dict[str, set[FeedSubscription]] = {}
        self._readers: dict[bytes, int] = {}
        self._count = 0
        self._opened = trio.Event()

    @property
    def open_streams(self) -> int:
        """Streams open now."""
        return self._count

    def poke(self, session_id: str) -> None:
        """Wake the streams of a session; never raises."""
        for subscription in self._open.get(session_id, ()):
            subscription.wake()

    def admit(self, reader: bytes) -> None:
        """Raise StreamsFull when no stream could be opened for `reader` now."""
        if self._readers.get(reader, 0) >= self._per_reader:
            raise StreamsFull

    @contextmanager
    def subscribe(self, reader: bytes, session_id: str) -> Generator[FeedSubscription]:
        """Register a stream while the block runs; it counts toward the limit of `reader` (a public key).

        Raises StreamsFull.
        """
        self.admit(reader)
        subscription = FeedSubscription()
        self._open.setdefault(session_id, set()).add(subscription)
        self._readers[reader] = self._readers.get(reader, 0) + 1
        self._count += 1
        self._opened.set()
        try:
            yield subscription
        finally:
            self._count -= 1
            self._readers[reader] -= 1
            if not self._readers[reader]:
                del self._readers[reader]
            self._open[session_id].discard(subscription)
            if not self._open[session_id]:
                del self._open[session_id]

    async def run(self, context: Context) -> None:
        """Poll the ledger for sessions whose hint was lost; idle while no stream is open."""
        seen = await self._ledger.read(history.newest_event_id)
        context.ready()
        while True:
            if not self._count:
                self._opened = trio.Event()
                await self._opened.wait()
            await trio.sleep(REREAD_S)
            try:
                seen = await self._reread(seen)
            except LedgerError as error:  # the next poll finds what this one missed
                _log.warning("events_not_reread", cause=type(error).__name__)

    async def _reread(self, seen: int) -> int:
        changed = await self._ledger.read(lambda connection: history.changed_since(connection, seen))
        for session_id in changed:
            self.poke(session_id)
        return max(seen, *changed.values()) if changed else seen
