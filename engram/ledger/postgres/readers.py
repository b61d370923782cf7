"""Queries on consistent snapshots of a PostgreSQL ledger, in threads, each with a time budget."""

import queue
from collections.abc import Callable
from typing import Final, TypeVar, final

import trio
from sqlalchemy import Connection

from engram.ledger.errors import LedgerUnavailable
from engram.ledger.postgres.faults import is_fault, text_of
from engram.ledger.postgres.link import Link

T = TypeVar("T")

SETTINGS: Final = {
    "default_transaction_read_only": "on",
    "timezone": "UTC",
    "idle_in_transaction_session_timeout": 60_000,
}


@final
class PostgresReaders:
    """A pool with one connection per concurrent query, each made when first needed."""

    def __init__(self, connect: Callable[[], Link], most: int) -> None:
        self._connect = connect
        self._limiter = trio.CapacityLimiter(most)
        self._idle: queue.LifoQueue[Link] = queue.LifoQueue()

    async def read(self, query: Callable[[Connection], T], budget_s: float) -> T:
        """Run a query on committed data. Raises what it raises, and LedgerUnavailable when it cannot run, or not within
        `budget_s` seconds."""
        return await trio.to_thread.run_sync(self.read_now, query, budget_s, limiter=self._limiter)

    def read_now(self, query: Callable[[Connection], T], budget_s: float) -> T:
        """Do so on this thread. A connection that the server has closed while it was idle is made again."""
        try:
            link, is_new = self._idle.get_nowait(), False
        except queue.Empty:
            link, is_new = self._connect(), True
        try:
            return link.read(query, budget_s)
        except Exception as error:
            if not is_fault(error):
                raise
            if link.raw.closed and not is_new:
                return self.read_now(query, budget_s)
            raise LedgerUnavailable(f"the ledger cannot be read: {text_of(error)}") from error.with_traceback(None)
        finally:
            if not link.raw.closed:
                self._idle.put(link)

    def close(self) -> None:
        """Close the idle connections."""
        while not self._idle.empty():
            self._idle.get().close()
