"""Group commit: many independent transactions in one durable COMMIT.

States of a group: BEGIN IMMEDIATE -> each request in a SAVEPOINT of its own (RELEASE, or ROLLBACK TO when it
raises) -> COMMIT -> all are answered. What can fail, and what is then true:

| where | what is true | answer |
|---|---|---|
| a request raises | its SAVEPOINT is undone, the others stand | its exception, after COMMIT |
| BEGIN, or SQLite rolls the whole transaction back (disk full) | nothing was committed | `not_done` to all |
| COMMIT: disk full, busy | nothing was committed; ROLLBACK | `not_done` to all |
| COMMIT: I/O error | not known | `unknown` to all; the process ends |
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from engram import kill_points
from engram.durable.database import REFUSED_BY_DISK, Database, text_of
from engram.durable.driver import code_of, sqlite3
from engram.durable.errors import DurableError, OutcomeUnknown

H = TypeVar("H")

MAX_GROUP = 256
"""The maximum size of one COMMIT, so that its first transaction never waits long; a larger one commits alone."""


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of one transaction: its value, or the exception to raise to its caller."""

    value: Any = None
    error: Exception | None = None

    @property
    def word(self) -> str:
        """`done`, `refused` (it raised and was rolled back alone), `failed` (not committed) or `unknown`."""
        match self.error:
            case None:
                return "done"
            case OutcomeUnknown():
                return "unknown"
            case DurableError():
                return "failed"
            case _:
                return "refused"


class Group(msgspec.Struct, frozen=True):
    """Measurements of one group commit."""

    seconds: float
    """From BEGIN to the end of COMMIT, fsync included."""
    outcomes: Sequence[Outcome]
    waiting: int
    """The number of transactions waiting for the next group."""

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


def run_group(
    database: Database[H],
    raw: sqlite3.Connection,
    handle: H,
    transactions: Sequence[Callable[[H], object]],
    commits: Commits,
) -> list[Outcome]:
    """Run the transactions in one COMMIT; outcomes are in their order and final. Never raises for a database fault."""
    try:
        raw.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        return _all(transactions, _not_done(database, error), commits)
    outcomes: list[Outcome] = []
    for transaction in transactions:
        outcome = _run_one(database, raw, handle, transaction)
        outcomes.append(outcome)
        if not raw.in_transaction:  # SQLite rolled back everything, not only this request
            failure = outcome.error if isinstance(outcome.error, database.not_done) else None
            return _all(transactions, failure or _not_done(database, outcome.error), commits)
    kill_points.point(f"{database.kill_point}begin:{commits.commits + 1}")
    try:
        raw.execute("COMMIT")
    except sqlite3.Error as error:
        return _all(transactions, _commit_failure(database, raw, error), commits)
    commits.commits += 1
    commits.transactions += len(transactions)
    kill_points.point(f"{database.kill_point}commit:{commits.commits}")
    return outcomes


def _run_one(database: Database[H], raw: sqlite3.Connection, handle: H, transaction: Callable[[H], object]) -> Outcome:
    try:
        raw.execute("SAVEPOINT request")
        value = transaction(handle)
        raw.execute("RELEASE request")
        return Outcome(value)
    except Exception as error:  # noqa: BLE001 - whatever a request's function raises belongs to its caller
        if raw.in_transaction:
            raw.execute("ROLLBACK TO request")
            raw.execute("RELEASE request")
        fault = database.fault(error)
        if fault is None:
            return Outcome(error=error)
        failure = database.not_done(f"nothing was written ({fault})")
        failure.__cause__ = error.with_traceback(None)
        return Outcome(error=failure)


def _commit_failure(database: Database[H], raw: sqlite3.Connection, error: sqlite3.Error) -> DurableError:
    # Out of memory may come after the log has the commit on disk: it is extended in memory last.
    done_nothing = code_of(error) in REFUSED_BY_DISK - {sqlite3.SQLITE_NOMEM}
    if raw.in_transaction:
        with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            raw.execute("ROLLBACK")
    if done_nothing:
        return _not_done(database, error)
    return database.unknown(f"COMMIT of {database.name} failed and may or may not have taken effect: {error}")


def _not_done(database: Database[H], error: BaseException | None) -> DurableError:
    return database.not_done(f"nothing was written ({text_of(error)})")


def _all(transactions: Sequence[object], error: Exception, commits: Commits) -> list[Outcome]:
    commits.failed += len(transactions)
    return [Outcome(error=error) for _ in transactions]
