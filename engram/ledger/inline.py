"""The ledger on the calling task, without a thread: for tests in virtual time and for one-shot commands."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, final

import trio
from sqlalchemy import Connection

from engram.durable import Commits, Outcome
from engram.durable.group import run_group
from engram.ledger.connection import LEDGER, open_writer
from engram.ledger.errors import LedgerUnavailable
from engram.ledger.lane import LaneClosed, Lookup, R
from engram.ledger.prepared import driver

T = TypeVar("T")


class Backing(Protocol):
    """One open database: SQLite, or a connection to PostgreSQL."""

    handle: Connection

    def commit(self, transactions: Sequence[Callable[[Connection], Any]], commits: Commits) -> list[Outcome]:
        """Run the transactions in one COMMIT."""
        ...

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on committed data."""
        ...

    def rows(self, lookup: Lookup[R], values: Sequence[object]) -> list[R]:
        """Read indexed rows. Raises LaneClosed where there is no lane."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


@final
class SqliteStore:
    """The file, or the memory, of a SQLite ledger."""

    def __init__(self, handle: Connection) -> None:
        self.handle = handle

    def commit(self, transactions: Sequence[Callable[[Connection], Any]], commits: Commits) -> list[Outcome]:
        """Run the transactions in one COMMIT."""
        return run_group(LEDGER, driver(self.handle), self.handle, transactions, commits)

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query; what is committed is all there is."""
        return query(self.handle)

    def rows(self, lookup: Lookup[R], values: Sequence[object]) -> list[R]:
        """Read indexed rows at once."""
        found = self.handle.exec_driver_sql(lookup.sql, tuple(values)).fetchall()
        return [lookup.decode(packed) for (packed,) in found]

    def close(self) -> None:
        """Close the file."""
        self.handle.close()
        self.handle.engine.dispose()


@final
class InlineLedger:
    """A ledger with the threaded one's guarantees. `before_commit` and `after_commit` inject faults in tests."""

    holds = True

    def __init__(self, store: Backing) -> None:
        self._store = store
        self._connection = store.handle
        self._closed = False
        self.commits = Commits()
        self.before_commit: Callable[[], None] | None = None
        self.after_commit: Callable[[], None] | None = None

    @property
    def handle(self) -> Connection:
        """The connection, outside of a transaction."""
        return self._connection

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """Run `transaction` durably. Raises what it raises, LedgerUnavailable or CommitUnknown."""
        await trio.lowlevel.checkpoint()
        return self.write_now(transaction)

    def write_now(self, transaction: Callable[[Connection], T]) -> T:
        """Run `transaction` as `write` does, outside an event loop."""
        if self._closed:
            raise LedgerUnavailable("the ledger is closed")
        if self.before_commit:
            self.before_commit()
        (outcome,) = self._store.commit([transaction], self.commits)
        if self.after_commit:
            self.after_commit()
        if outcome.error is not None:
            raise outcome.error
        value: T = outcome.value
        return value

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run `query` on the committed state."""
        await trio.lowlevel.checkpoint()
        return self.read_now(query)

    def read_now(self, query: Callable[[Connection], T]) -> T:
        """Run `query` as `read` does, outside an event loop."""
        if self._closed:
            raise LedgerUnavailable("the ledger is closed")
        return self._store.read(query)

    def rows(self, lookup: Lookup[R], *values: object) -> list[R]:
        """Read indexed rows at once."""
        if self._closed:
            raise LaneClosed("the ledger is closed")
        return self._store.rows(lookup, values)

    def close(self) -> None:
        """Close the file; later calls raise LedgerUnavailable."""
        self._closed = True
        self._store.close()


def open_inline(path: Path | None = None) -> InlineLedger:
    """Open (and migrate) the ledger at `path`, or a private one in memory."""
    return InlineLedger(SqliteStore(open_writer(path)))
