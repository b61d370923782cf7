"""The ledger's writer on PostgreSQL: one thread and one connection, which it makes again when it is lost.

| what happens | what the writer does |
|---|---|
| the server is away | answers `LedgerUnavailable` to what is submitted, and connects again at the next |
| a COMMIT is lost on its way | connects again, for as long as it takes, and finds out; its callers wait |
| the lease is another's | ends, and the process with it |
| nothing is written | renews the lease every quarter of its ttl, and takes over what ended gateways left |
| much is written | does the same at least every half of its ttl |
| much was left | takes it over page by page, and commits what waits after each page |
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, final

import psycopg
import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from engram.durable import CommitThread, DurableError, Group, Outcome
from engram.ledger.errors import CommitUnknown, LedgerError, LedgerUnavailable
from engram.ledger.postgres import lease as leases
from engram.ledger.postgres.group import MAX_GROUP, CommitLost, Fenced, GroupCommit, settled
from engram.ledger.postgres.lease import Lease
from engram.ledger.postgres.link import Link

RECONNECT_S: Final = 0.2
SETTLE_S: Final = 600.0
"""After this long without a server the outcome of a lost COMMIT is given up as unknown, and the process ends."""

_log = structlog.get_logger("engram.ledger")


@final
class PostgresWriter(CommitThread[Connection]):
    """Owns the writing connection and the lease until `close`."""

    max_group = MAX_GROUP

    def __init__(
        self,
        connect: Callable[[], Link],
        lease: Lease | None,
        link: Link,
        *,
        on_fatal: Callable[[DurableError], None],
        on_group: Callable[[Group], None],
        on_drain: Callable[[], None] = lambda: None,
    ) -> None:
        """`connect` makes another connection like `link`, and raises LedgerUnavailable; `on_drain` is called on the
        trio thread, once, when the operator wants this process to end."""
        super().__init__("the ledger", LedgerUnavailable, CommitUnknown, on_fatal, on_group)
        self._connect = connect
        self._lease = lease
        self._link: Link | None = link
        self._closing = threading.Event()
        self._looked_at = time.monotonic() if lease is not None else 0.0
        """When it last looked at what other gateways have left."""
        self._more_is_left = False
        self._callers_are_next = False
        self._on_drain: Callable[[], None] | None = on_drain

    def _commit(self, transactions: Sequence[Callable[[Connection], Any]]) -> list[Outcome]:
        try:
            link = self._usable()
        except LedgerUnavailable as error:
            self.commits.failed += len(transactions)
            return [Outcome(error=error) for _ in transactions]
        sent_at = time.monotonic()
        before = self.commits.commits
        try:
            outcomes = GroupCommit(link, self._lease.renewal if self._lease else None).run(transactions, self.commits)
        except CommitLost as lost:
            _log.warning("commit_lost", reason=str(lost))
            outcomes = settled(lost, self._settle(lost), transactions, self.commits)
        except Fenced as error:
            return [Outcome(error=self._fenced(error)) for _ in transactions]
        if self._lease and self.commits.commits > before:
            self._lease.renewed(sent_at)
        return outcomes

    def _fenced(self, error: Fenced) -> CommitUnknown:
        """Return the error that ends the process; nothing was committed, and what waits is said to be unknown."""
        _log.error("lease_lost", epoch=self._lease.epoch if self._lease else 0)
        return CommitUnknown(str(error))

    def _patience(self) -> float | None:
        if self._more_is_left:
            return 0.0
        return self._lease.due_in_s if self._lease else None

    def _is_overdue(self) -> bool:
        if self._callers_are_next:
            self._callers_are_next = False
            return False
        if self._more_is_left:
            return True
        return self._lease is not None and time.monotonic() - self._looked_at > self._lease.ttl_s / 2

    def _idle(self) -> DurableError | None:
        """Renew the lease, and take over a page of what gateways have left that are gone."""
        fatal, self._more_is_left = self._look()
        self._callers_are_next = self._more_is_left
        return fatal

    def _look(self) -> tuple[DurableError | None, bool]:
        """Take over one page; return what ends the process, and whether there may be more."""
        assert self._lease is not None
        self._looked_at = time.monotonic()
        lease, me = self._lease, self._lease.epoch

        def look(connection: Connection) -> tuple[bool, list[int], dict[str, int]]:
            if leases.is_draining(connection, me):  # its answer comes after that of the renewal
                return True, [], {}
            ended = leases.end_expired(connection, me) if lease.may_judge else []
            return False, ended, leases.take_over(connection, me, time.time())

        (outcome,) = self._commit([look])
        if isinstance(outcome.error, CommitUnknown):
            return outcome.error, False
        if outcome.error is not None:
            _log.warning("lease_not_renewed", reason=str(outcome.error))
            self._end_stopped(self._lease.ttl_s)
            self._closing.wait(min(RECONNECT_S, self._lease.ttl_s / 4))
            return None, False
        draining, ended, taken = outcome.value
        if draining and self._on_drain is not None and self._token is not None:
            _log.warning("draining", epoch=me)
            self._token.run_sync_soon(self._on_drain)
            self._on_drain = None
        if ended or taken:
            _log.warning("taken_over", ended=ended, **taken)
        return None, any(count == leases.PAGE for count in taken.values())

    def _end_stopped(self, ttl_s: float) -> None:
        """End who may have kept this process from its turn."""
        if self._link is None or not self._link.usable:
            return
        try:
            ended = leases.end_stopped(self._link.outside(), ttl_s)
        except (psycopg.Error, DBAPIError) as error:
            _log.warning("stopped_gateways_not_ended", reason=" ".join(str(error).split()))
            return
        if ended:
            _log.warning("stopped_gateways_ended", sessions=ended)

    def _close(self) -> None:
        self._closing.set()
        try:
            if self._lease is not None:
                leases.end(self._usable().outside(), self._lease.epoch)
        except (LedgerError, psycopg.Error, DBAPIError):
            pass  # it expires
        if self._link is not None:
            self._link.close()

    def _usable(self) -> Link:
        if self._link is None or not self._link.usable:
            if self._link is not None:
                self._link.close()
                self._link = None
            self._link = self._connect()
            _log.info("ledger_connected")
        return self._link

    def _settle(self, lost: CommitLost) -> bool | None:
        """Find out whether a lost COMMIT took effect; None: it cannot be found out."""
        if self._lease is None:
            return None
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            try:
                found = self._lease.took_effect(self._usable(), lost.groups)
            except (LedgerError, psycopg.Error) as error:
                _log.warning("commit_not_settled_yet", reason=" ".join(str(error).split()))
                time.sleep(RECONNECT_S)
            else:
                _log.warning("commit_settled", took_effect=found)
                return found
        return None
