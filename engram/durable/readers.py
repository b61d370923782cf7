"""Runs queries on consistent snapshots of a database, in threads, with a time budget."""

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar, final

import trio

from engram.durable.connection import limit, open_reader
from engram.durable.database import Database
from engram.durable.driver import sqlite3

H = TypeVar("H")
T = TypeVar("T")

READ_BUDGET_S: Final = 2.0
"""A query that takes longer (a filter over very many rows) is interrupted, so that readers stay available."""


@final
class Readers(Generic[H]):
    """A pool with one connection per concurrent query, each opened when first needed."""

    def __init__(self, database: Database[H], path: Path, most: int) -> None:
        self._database = database
        self._path = path
        self._limiter = trio.CapacityLimiter(most)
        self._idle: queue.LifoQueue[tuple[sqlite3.Connection, H]] = queue.LifoQueue()

    async def read(self, query: Callable[[H], T], budget_s: float = READ_BUDGET_S) -> T:
        """Run a query on committed data. Raises what it raises, and `not_done` when it cannot run, or not within
        `budget_s` seconds."""
        return await trio.to_thread.run_sync(self._read, query, budget_s, limiter=self._limiter)

    def close(self) -> None:
        """Close the idle connections."""
        while not self._idle.empty():
            self._idle.get()[0].close()

    def _read(self, query: Callable[[H], T], budget_s: float) -> T:
        try:
            raw, handle = self._connection()
            try:
                limit(raw, budget_s)
                raw.execute("BEGIN")
                try:
                    return query(handle)
                finally:
                    if raw.in_transaction:  # an I/O error ends it, and must not be hidden by one of ROLLBACK
                        raw.execute("ROLLBACK")
            finally:
                self._idle.put((raw, handle))
        except Exception as error:
            fault = self._database.fault(error)
            if fault is None:
                raise
            # a cursor in its frames would pin this reader to its snapshot
            raise self._database.not_done(f"{self._database.name} cannot be read: {fault}") from error.with_traceback(
                None
            )

    def _connection(self) -> tuple[sqlite3.Connection, H]:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            raw = open_reader(self._path)
            return raw, self._database.wrap(raw)
