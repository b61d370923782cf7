"""The ledger's actor: it owns the writer and answers each transaction after its COMMIT. It calls no other actor."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar, cast, final

import trio
from sqlalchemy import Connection

from actors import LATER, Actor, ActorDown, ActorRef, CallTimeout, Context, ExitReason, MailboxPolicy, Message
from engram.durable import Commits, CommitThread, DurableError, Group, Outcome, Readers, Writer, WriteRequest
from engram.ledger.connection import LEDGER, LEDGER_FILE
from engram.ledger.errors import CommitPending, LedgerError, LedgerUnavailable
from engram.ledger.lane import Lane, LaneClosed, Lookup, R
from engram.ledger.port import Reading, Server

T = TypeVar("T")
Transaction = Callable[[Connection], object]

WRITE_TIMEOUT_S = 30.0
"""If the disk or the server has not committed after this, callers get an unknown outcome (CommitPending)."""
BEGIN_WITHIN_S = 20.0
"""A transaction that has waited for this long is not begun any more: nothing was written."""
READ_BUDGET_S = 30.0
"""A report over a large ledger takes seconds; a longer query is interrupted."""
READERS = 4
REMOTE_READERS = 8
"""Each waits for the network most of its time."""


class Transact(Message[object], frozen=True):
    """Run one transaction in the writer."""

    transaction: Transaction


class CountCommits(Message[Commits], frozen=True):
    """Counters since the ledger was opened."""


@final
class LedgerActor(Actor[Transact | CountCommits]):
    """Opens the file, or connects to `server`, at start, and closes at stop; calls `on_fatal` after a COMMIT of unknown
    outcome or when another process has this one's lease, and `on_group` after every group."""

    mailbox = MailboxPolicy(bound=4096, when_full="refuse")

    def __init__(
        self,
        folder: Path,
        on_fatal: Callable[[LedgerError], None],
        on_group: Callable[[Group], None] = lambda group: None,
        server: Server | None = None,
    ) -> None:
        self._server = server
        self._path = folder / LEDGER_FILE
        self._on_fatal = on_fatal
        self._on_group = on_group
        self._writer: CommitThread[Connection] | None = None
        self._context: Context | None = None

    async def on_start(self, context: Context) -> None:
        opening: Callable[[], CommitThread[Connection]]
        if self._server is None:
            opening = partial(Writer, LEDGER, self._path, on_fatal=self._lost, on_group=self._on_group)
        else:
            opening = partial(self._server.open_writer, self._lost, self._on_group)
        self._writer, self._context = await trio.to_thread.run_sync(opening), context
        self._writer.start()

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

                self._writer.submit(WriteRequest(transaction, deliver, begin_by=time.monotonic() + BEGIN_WITHIN_S))
                return LATER

    async def on_stop(self, reason: ExitReason) -> None:
        if self._writer is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._writer.close)

    def _lost(self, error: DurableError) -> None:
        assert isinstance(error, LedgerError)
        self._on_fatal(error)


@final
class LedgerClient:
    """The `Ledger` that all areas use: writes go to the actor, reads run in threads."""

    def __init__(self, ref: ActorRef[Transact | CountCommits], folder: Path, server: Server | None = None) -> None:
        self._ref = ref
        self._server = server
        self._readers: Reading
        self._lane: Lane | None = None
        if server is None:
            self._readers = Readers(LEDGER, folder / LEDGER_FILE, READERS)
            self._lane = Lane(folder / LEDGER_FILE)
        else:
            self._readers = server.open_readers(REMOTE_READERS)

    @property
    def holds(self) -> bool:
        """Whether this process owns what it works on for certain."""
        return self._server is None or self._server.holds

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        try:
            return cast("T", await self._ref.call(Transact(transaction), timeout=WRITE_TIMEOUT_S))
        except (CallTimeout, ActorDown) as error:
            if error.taken:
                raise CommitPending(f"not known to be written yet: {error}") from error
            raise LedgerUnavailable(f"nothing was written: {error}") from error

    async def read(self, query: Callable[[Connection], T]) -> T:
        return await self._readers.read(query, READ_BUDGET_S)

    def rows(self, lookup: Lookup[R], *values: object) -> list[R]:
        if self._lane is None:
            raise LaneClosed("PostgreSQL is read in threads")
        return self._lane.rows(lookup, *values)

    async def commits(self) -> Commits:
        """Return the counters of the writer."""
        return await self._ref.call(CountCommits())

    def close(self) -> None:
        """Close the readers' connections."""
        if self._lane is not None:
            self._lane.close()
        self._readers.close()
