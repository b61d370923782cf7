"""One connection that writes and reads without a thread or a lease: for one-shot commands."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, final

from sqlalchemy import Connection

from engram.durable import Commits, Outcome
from engram.ledger.errors import LedgerUnavailable
from engram.ledger.lane import LaneClosed, Lookup, R
from engram.ledger.postgres.group import CommitLost, GroupCommit, settled
from engram.ledger.postgres.link import Link

T = TypeVar("T")


@final
class PostgresStore:
    """See engram.ledger.inline.Backing."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.handle = link.handle

    def commit(self, transactions: Sequence[Callable[[Connection], Any]], commits: Commits) -> list[Outcome]:
        """Run the transactions in one COMMIT; without a lease, one that was lost is unknown."""
        if not self._link.usable:
            error = LedgerUnavailable("nothing was written: the connection to the server is lost")
            return [Outcome(error=error) for _ in transactions]
        try:
            return GroupCommit(self._link, None).run(transactions, commits)
        except CommitLost as lost:
            return settled(lost, None, transactions, commits)

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on a snapshot."""
        return self._link.read(query, 30.0)

    def rows(self, lookup: Lookup[R], values: Sequence[object]) -> list[R]:
        """Raise LaneClosed: another process is not read on the loop."""
        raise LaneClosed("PostgreSQL is read in threads")

    def close(self) -> None:
        """Close the connection."""
        self._link.close()
