"""The ledger as an actor: it owns the writer and answers each transaction after its COMMIT. It calls nobody."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast, final

import trio
from sqlalchemy import Connection

from actors import LATER, Actor, ActorRef, Context, ExitReason, MailboxPolicy, Message
from engram.ledger.connection import LEDGER_FILE, reading_engine
from engram.ledger.errors import LedgerError
from engram.ledger.group import Commits, Group, Outcome, Transaction
from engram.ledger.lane import Lane, Lookup, Row
from engram.ledger.prepared import driver
from engram.ledger.writer import Request, Writer

T = TypeVar("T")

WRITE_TIMEOUT_S = 30.0
"""A disk that has not committed after this is told to callers as an unknown outcome (actors.CallTimeout)."""
READERS = 4


class Transact(Message[object], frozen=True):
    """Run one transaction in the writer."""

    transaction: Transaction


class CountCommits(Message[Commits], frozen=True):
    """Counters since the ledger was opened."""


@final
class LedgerActor(Actor[Transact | CountCommits]):
    """Opens the file at start, closes it at stop; `on_fatal` is told of a COMMIT whose outcome is not known, `on_group`
    of every group."""

    mailbox = MailboxPolicy(bound=4096, when_full="refuse")

    def __init__(
        self,
        folder: Path,
        on_fatal: Callable[[LedgerError], None],
        on_group: Callable[[Group], None] = lambda group: None,
    ) -> None:
        self._path = folder / LEDGER_FILE
        self._on_fatal = on_fatal
        self._on_group = on_group
        self._writer: Writer | None = None
        self._context: Context | None = None

    async def on_start(self, context: Context) -> None:
        writer = Writer(self._path, self._on_fatal, self._on_group)
        await writer.open()
        self._writer, self._context = writer, context

    async def handle(self, message: Transact | CountCommits) -> object:
        assert self._writer is not None
        assert self._context is not None
        match message:
            case CountCommits():
                return self._writer.commits
            case Transact(transaction):
                reply_to = self._context.reply_to()

                def deliver(outcome: Outcome) -> None:
                    if outcome.error is not None:
                        reply_to.refuse(outcome.error)
                    else:
                        reply_to.reply(outcome.value)

                self._writer.submit(Request(transaction, deliver))
                return LATER

    async def on_stop(self, reason: ExitReason) -> None:
        if self._writer is not None:
            with trio.CancelScope(shield=True):
                await self._writer.close()


@final
class LedgerClient:
    """The `Ledger` everybody holds: writes go to the actor, reads to short-lived threads of their own."""

    def __init__(self, ref: ActorRef[Transact | CountCommits], folder: Path) -> None:
        self._ref = ref
        self._engine = reading_engine(folder / LEDGER_FILE)
        self._limiter = trio.CapacityLimiter(READERS)
        self._idle: list[Connection] = []
        self._lane = Lane(folder / LEDGER_FILE)

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        return cast("T", await self._ref.call(Transact(transaction), timeout=WRITE_TIMEOUT_S))

    async def read(self, query: Callable[[Connection], T]) -> T:
        return await trio.to_thread.run_sync(self._read, query, limiter=self._limiter)

    def rows(self, lookup: Lookup, *values: object) -> list[Row]:
        return self._lane.rows(lookup, *values)

    async def commits(self) -> Commits:
        """Counters of the writer."""
        return await self._ref.call(CountCommits())

    def close(self) -> None:
        """Close the readers' connections."""
        self._lane.close()
        while self._idle:
            self._idle.pop().close()
        self._engine.dispose()

    def _read(self, query: Callable[[Connection], T]) -> T:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._engine.connect()
        try:
            raw = driver(connection)
            raw.execute("BEGIN")
            try:
                return query(connection)
            finally:
                raw.execute("ROLLBACK")
        finally:
            self._idle.append(connection)
