"""The ledger on the calling task, without a thread: for tests in virtual time and for one-shot commands."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, final

import trio
from sqlalchemy import Connection

from engram.durable import Commits
from engram.durable.group import run_group
from engram.ledger.connection import LEDGER, open_writer
from engram.ledger.errors import LedgerUnavailable
from engram.ledger.lane import LaneClosed, Lookup, R
from engram.ledger.prepared import driver

T = TypeVar("T")


@final
class InlineLedger:
    """A ledger with the threaded one's guarantees. `before_commit` and `after_commit` inject faults in tests."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._closed = False
        self.commits = Commits()
        self.before_commit: Callable[[], None] | None = None
        self.after_commit: Callable[[], None] | None = None

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
        (outcome,) = run_group(LEDGER, driver(self._connection), self._connection, [transaction], self.commits)
        if self.after_commit:
            self.after_commit()
        if outcome.error is not None:
            raise outcome.error
        value: T = outcome.value
        return value

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run `query` on the committed state."""
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise LedgerUnavailable("the ledger is closed")
        return query(self._connection)

    def rows(self, lookup: Lookup[R], *values: object) -> list[R]:
        """Read indexed rows at once."""
        if self._closed:
            raise LaneClosed("the ledger is closed")
        found = self._connection.exec_driver_sql(lookup.sql, values).fetchall()
        return [lookup.decode(packed) for (packed,) in found]

    def close(self) -> None:
        """Close the file; later calls raise LedgerUnavailable."""
        self._closed = True
        self._connection.close()
        self._connection.engine.dispose()


def open_inline(path: Path | None = None) -> InlineLedger:
    """Open (and migrate) the ledger at `path`, or a private one in memory."""
    return InlineLedger(open_writer(path))
