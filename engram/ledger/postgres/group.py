"""Group commit on PostgreSQL: many independent transactions in one durable COMMIT, under the gateway's lease.

Every group begins with two statements. The first renews this process's lease and fences it: 0 rows mean that another
gateway has taken over its work (lease.py). The second takes the turn: one row that every writing group of every gateway
locks until its COMMIT. So groups run one after the other, as they do in SQLite's one writer, and all that the areas'
rules rely on holds unchanged: a limit that was counted still holds when the row is inserted, a number that is drawn is
in commit order, and no two groups wait for each other. What it costs is measured in docs/scaling.md.

What can fail, and what is then true:

| where | what is true | answer |
|---|---|---|
| a request raises, or one of its statements fails | it is undone, the others stand | its error, after COMMIT |
| BEGIN, the turn (waited too long) | nothing was committed | `not_done` to all |
| the lease is another's | nothing was committed | `unknown` to none, `Fenced`: the process ends |
| the connection ends before COMMIT was sent | the server rolls back | `not_done` to all |
| the connection ends after COMMIT was sent | not known: `settle` finds out | what it finds |
| COMMIT fails with the connection open | nothing was committed | `not_done` to all |
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, final

import psycopg
from sqlalchemy import Connection

from engram import kill_points
from engram.durable import Commits, Outcome
from engram.ledger.errors import CommitUnknown, LedgerError, LedgerUnavailable
from engram.ledger.postgres.ahead import Ahead, SentStatement, translated
from engram.ledger.postgres.faults import ConnectionGone, is_fault, text_of
from engram.ledger.postgres.link import Link

Transaction = Callable[[Connection], Any]
MAX_GROUP: Final = 60
"""A transaction with more than 64 subtransactions overflows the server's cache of them."""
TURN: Final = "SELECT id FROM ledger_turn WHERE id = 1 FOR UPDATE"
_OK: Final = "SAVEPOINT ok"
_UNDO: Final = "ROLLBACK TO SAVEPOINT ok"


class Fenced(LedgerError):
    """Another process has taken over this one's lease: it must end, and its next start gets a lease of its own."""


class CommitLost(Exception):
    """The connection ended while COMMIT was on its way; `outcomes` are those of the requests if it took effect."""

    def __init__(self, outcomes: list[Outcome], reason: str) -> None:
        super().__init__(reason)
        self.outcomes = outcomes
        self.groups = 0
        """The lease's count of groups if it took effect."""


@final
class GroupCommit:
    """One group on a link that is idle."""

    def __init__(self, link: Link, fence: str | None) -> None:
        """`fence` is the statement that renews the lease, None without one."""
        self._link = link
        self._ahead: Ahead = link.ahead
        self._fence = fence

    def run(self, transactions: Sequence[Transaction], commits: Commits) -> list[Outcome]:
        """Run the transactions in one COMMIT; outcomes are in their order and final.

        Raises Fenced and CommitLost; every other fault is in the outcomes.
        """
        ahead = self._ahead
        ahead.new_group()
        try:
            opening = [ahead.send("BEGIN"), *([ahead.send(self._fence)] if self._fence else []), ahead.send(TURN)]
            ahead.send(_OK)
            ahead.sync()
            values = [self._run_one(number, each) for number, each in enumerate(transactions, start=1)]
            ahead.settle()
            refusal = self._refusal(opening)
            if refusal is not None:
                self._roll_back()
                if isinstance(refusal, Fenced):
                    raise refusal
                return _all(transactions, refusal, commits)
        except psycopg.Error as error:
            self._link.close()
            return _all(transactions, _not_done(error), commits)
        outcomes = [self._outcome(number, value) for number, value in enumerate(values, start=1)]
        kill_points.point(f"begin:{commits.commits + 1}")
        try:
            failure = self._commit(outcomes)
        except CommitLost as lost:
            lost.groups = int(opening[1].rows[0][0]) if self._fence else 0
            raise
        if failure is not None:
            return _all(transactions, failure, commits)
        commits.commits += 1
        commits.transactions += len(transactions)
        kill_points.point(f"commit:{commits.commits}")
        return outcomes

    def _run_one(self, number: int, transaction: Transaction) -> Outcome:
        ahead = self._ahead
        if ahead.outstanding or ahead.errors.get(number - 1) is not None:
            ahead.send(_UNDO)
        ahead.request = number
        try:
            value = transaction(self._link.handle)
            ahead.send(_OK)
            ahead.sync()
            return Outcome(value)
        except ConnectionGone:
            raise
        except Exception as error:
            if self._link.raw.closed:
                raise ConnectionGone(text_of(error)) from error
            ahead.sync()
            ahead.send(_UNDO)
            ahead.sync()
            return Outcome(error=error)

    def _outcome(self, number: int, found: Outcome) -> Outcome:
        error = found.error or self._ahead.errors.get(number)
        if error is None:
            return found
        if not is_fault(error):
            return Outcome(error=found.error or translated("", self._ahead.errors[number]))
        failure = _not_done(error)
        failure.__cause__ = error.with_traceback(None)
        return Outcome(error=failure)

    def _refusal(self, opening: Sequence[SentStatement]) -> LedgerError | None:
        """Return why the group as a whole cannot be committed."""
        for sent in opening:
            if sent.error is not None:
                return _not_done(sent.error)
        if self._fence and opening[1].changed != 1:
            return Fenced("another gateway has taken over the work of this one; it ends, and may be started again")
        return None

    def _commit(self, outcomes: list[Outcome]) -> LedgerError | None:
        ahead = self._ahead
        is_aborted = len(outcomes) in ahead.errors
        ahead.request = 0
        try:
            if is_aborted:  # by the last request: none after it has undone it
                ahead.send(_UNDO)
            sent = ahead.send("COMMIT")
            ahead.settle()
        except psycopg.Error as error:
            self._link.close()
            raise CommitLost(outcomes, text_of(error)) from error
        if sent.error is not None:
            return _not_done(sent.error)
        if sent.tag != b"COMMIT":  # the server had given up the transaction
            return LedgerUnavailable(f"nothing was written: the server answered {sent.tag.decode()} to COMMIT")
        return None

    def _roll_back(self) -> None:
        self._ahead.sync()
        self._ahead.send("ROLLBACK")
        self._ahead.settle()


def settled(
    lost: CommitLost, took_effect: bool | None, transactions: Sequence[object], commits: Commits
) -> list[Outcome]:
    """Return the outcomes of a group whose COMMIT was lost; `took_effect` None: it cannot be found out."""
    if took_effect:
        commits.commits += 1
        commits.transactions += len(transactions)
        return lost.outcomes
    if took_effect is None:
        return _all(transactions, CommitUnknown(f"COMMIT may or may not have taken effect: {lost}"), commits)
    return _all(transactions, LedgerUnavailable(f"nothing was written ({lost})"), commits)


def _not_done(error: BaseException) -> LedgerUnavailable:
    return LedgerUnavailable(f"nothing was written ({text_of(error)})")


def _all(transactions: Sequence[object], error: Exception, commits: Commits) -> list[Outcome]:
    commits.failed += len(transactions)
    return [Outcome(error=error) for _ in transactions]
