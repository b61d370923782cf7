"""The ledger's interface for all areas."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from engram.durable import CommitThread, DurableError, Group
from engram.ledger.lane import Lookup, R

T = TypeVar("T")


class Ledger(Protocol):
    """The ledger of durable facts: `write` returns after COMMIT, `read` sees only committed data."""

    @property
    def holds(self) -> bool:
        """Whether this process owns what it works on for certain: an effect outside the ledger may begin. A process
        that has the ledger for itself always does."""
        ...

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """Run a short transaction without I/O, atomically. Raises what it raises, LedgerUnavailable (not done) or
        CommitUnknown; its kind CommitPending where the ledger is only slow."""
        ...

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on a consistent snapshot; the database refuses writes in it."""
        ...

    def rows(self, lookup: Lookup[R], *values: object) -> list[R]:
        """Read committed rows by an index, on the loop without waiting. Raises LaneClosed: then use `read`."""
        ...


class Reading(Protocol):
    """A pool of readers."""

    async def read(self, query: Callable[[Connection], T], budget_s: float) -> T:
        """Run a query on a consistent snapshot of what is committed, for at most `budget_s` seconds."""
        ...

    def close(self) -> None:
        """Close the idle connections."""
        ...


class Server(Protocol):
    """A ledger in another process; see engram.ledger.postgres.server."""

    @property
    def place(self) -> str:
        """Where it is, without a password."""
        ...

    @property
    def holds(self) -> bool:
        """Whether this process has its lease for certain."""
        ...

    def open_writer(
        self, on_fatal: Callable[[DurableError], None], on_group: Callable[[Group], None]
    ) -> CommitThread[Connection]:
        """Connect, migrate and take the lease; blocks. Raises LedgerUnusable and LedgerUnavailable."""
        ...

    def open_inline(self) -> Any:
        """Connect and migrate without a lease; blocks. Raises LedgerUnusable and LedgerUnavailable."""
        ...

    def open_readers(self, most: int) -> Reading:
        """Return a pool of readers."""
        ...
