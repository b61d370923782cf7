"""What every area may ask of the ledger."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from engram.ledger.lane import Lookup, Row

T = TypeVar("T")


class Ledger(Protocol):
    """Durable facts: `write` returns after COMMIT, `read` sees only what is committed."""

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """Run a short transaction, no I/O in it; it is made alone or not at all. Raises what it raises,
        LedgerUnavailable (not done) or CommitUnknown."""
        ...

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on a consistent snapshot; writing in it is refused by SQLite."""
        ...

    def rows(self, lookup: Lookup, *values: object) -> list[Row]:
        """Read indexed rows at once, on the loop; committed ones only. Raises LaneClosed: use `read` instead."""
        ...
