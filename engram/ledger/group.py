"""Group commit: many independent transactions in one durable COMMIT.

States of a group: BEGIN IMMEDIATE -> each request in a SAVEPOINT of its own (RELEASE, or ROLLBACK TO when it
raises) -> COMMIT -> everybody is answered. What can fail, and what is then true:

| where | what is true | answer |
|---|---|---|
| a request raises | its SAVEPOINT is undone, the others stand | its exception, after COMMIT |
| BEGIN, or SQLite rolls the whole transaction back (disk full) | nothing was committed | LedgerUnavailable to all |
| COMMIT: disk full, busy | nothing was committed; ROLLBACK | LedgerUnavailable to all |
| COMMIT: I/O error | not known | CommitUnknown to all; the process ends |
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import sqlalchemy.exc
from sqlalchemy import Connection

from engram import kill_points
from engram.durable.driver import sqlite3
from engram.ledger.errors import CommitUnknown, LedgerError, LedgerUnavailable
from engram.ledger.prepared import driver

Transaction = Callable[[Connection], Any]

MAX_GROUP = 256
"""Transactions in one COMMIT at most, so that the first of them never waits long."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of one transaction: its value, or the exception to raise to its caller."""

    value: Any = None
    error: Exception | None = None

    @property
    def word(self) -> str:
        """`done`, `refused` (it raised, and was undone alone), `failed` (the ledger did not take it) or `unknown`."""
        match self.error:
            case None:
                return "done"
            case CommitUnknown():
                return "unknown"
            case LedgerError():
                return "failed"
            case _:
                return "refused"


class Group(msgspec.Struct, frozen=True):
    """One group as it was committed, for whoever measures."""

    seconds: float
    """From BEGIN to the end of COMMIT, fsync included."""
    outcomes: Sequence[Outcome]
    waiting: int
    """Transactions that wait for the next group."""

    @property
    def word(self) -> str:
        """`done`, `failed` (nothing was committed) or `unknown`."""
        words = {outcome.word for outcome in self.outcomes}
        return "unknown" if "unknown" in words else "failed" if words == {"failed"} else "done"


class Commits(msgspec.Struct):
    """Counters of one writer."""

    commits: int = 0
    transactions: int = 0
    failed: int = 0


def run_group(connection: Connection, transactions: Sequence[Transaction], commits: Commits) -> list[Outcome]:
    """Run the transactions in one COMMIT; outcomes are in their order and final. Never raises for a database fault."""
    raw = driver(connection)  # the frame of every group: by SQLAlchemy it costs more than what is in it
    try:
        raw.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        return _all(transactions, _not_done(error), commits)
    outcomes: list[Outcome] = []
    for transaction in transactions:
        outcome = _run_one(connection, raw, transaction)
        outcomes.append(outcome)
        if not raw.in_transaction:  # SQLite undid everything, not only this request
            return _all(transactions, _not_done(outcome.error), commits)
    kill_points.point(f"begin:{commits.commits + 1}")
    try:
        raw.execute("COMMIT")
    except sqlite3.Error as error:
        failure = _commit_failure(error)
        if raw.in_transaction:
            _rollback(raw)
        return _all(transactions, failure, commits)
    commits.commits += 1
    commits.transactions += len(transactions)
    kill_points.point(f"commit:{commits.commits}")
    return outcomes


def _run_one(connection: Connection, raw: sqlite3.Connection, transaction: Transaction) -> Outcome:
    try:
        raw.execute("SAVEPOINT request")
        value = transaction(connection)
        raw.execute("RELEASE request")
        return Outcome(value)
    except Exception as error:  # noqa: BLE001 - whatever a request's function raises belongs to its caller
        if raw.in_transaction:
            raw.execute("ROLLBACK TO request")
            raw.execute("RELEASE request")
        return Outcome(error=_not_done(error) if _is_disk_fault(error) else error)


def _all(transactions: Sequence[Transaction], error: LedgerError, commits: Commits) -> list[Outcome]:
    commits.failed += len(transactions)
    return [Outcome(error=error) for _ in transactions]


def _rollback(raw: sqlite3.Connection) -> None:
    try:
        raw.execute("ROLLBACK")
    except sqlite3.Error:
        return  # SQLite had already rolled back


_NOT_DONE = (
    "SQLITE_FULL",
    "SQLITE_READONLY",
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_CANTOPEN",
    "SQLITE_NOMEM",
)


_HINTS = {
    "SQLITE_FULL": "the disk is full: free some space",
    "SQLITE_READONLY": "the disk is read-only: check the mount and permissions",
}


def _code(error: BaseException | None) -> str:
    original = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    return str(getattr(original, "sqlite_errorname", ""))


def _is_disk_fault(error: BaseException) -> bool:
    return _code(error).startswith((*_NOT_DONE, "SQLITE_IOERR", "SQLITE_CORRUPT"))


def _not_done(error: BaseException | None) -> LedgerUnavailable:
    original = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    code = _code(error)
    hint = next((hint for prefix, hint in _HINTS.items() if code.startswith(prefix)), "check the disk")
    return LedgerUnavailable(f"nothing was written ({original}); {hint}")


def _commit_failure(error: sqlite3.Error) -> LedgerError:
    if _code(error).startswith(_NOT_DONE):
        return _not_done(error)
    return CommitUnknown(f"COMMIT failed and may or may not have taken effect: {error}")
