"""The ledger's interface for all areas."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from engram.ledger.lane import Lookup, R

T = TypeVar("T")


class Ledger(Protocol):
    """The ledger of durable facts: `write` returns after COMMIT, `read` sees only committed data."""

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """Run a short transaction without I/O, atomically. Raises what it raises, LedgerUnavailable (not done) or
        CommitUnknown."""
        ...

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on a consistent snapshot; SQLite refuses writes in it."""
        ...

    def rows(self, lookup: Lookup[R], *values: object) -> list[R]:
        """Read committed rows by an index, on the loop without waiting. Raises LaneClosed: then use `read`."""
        ...
