"""The only writer of a database: a thread that commits waiting transactions in groups.

`submit` queues a transaction and returns at once; `deliver` is called on the trio thread with its outcome, only after
COMMIT. Deleted data is removed from the files when nothing was written for a while.

The thread ends on `close`, after a COMMIT of unknown outcome, or because of a bug. In the last two cases all waiting
callers are answered, later ones are refused, and `on_fatal` ends the process.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, NoReturn, TypeVar, final

import msgspec
import trio

from engram.durable import erasing
from engram.durable.connection import open_writer
from engram.durable.database import Database
from engram.durable.errors import DurableError, OutcomeUnknown
from engram.durable.group import MAX_GROUP, Commits, Group, Outcome, run_group

H = TypeVar("H")

MOST_WAITING: Final = 8_192
"""The maximum number of unanswered transactions; beyond it more are refused."""


class WriteRequest(msgspec.Struct, Generic[H], frozen=True):
    """A transaction and the receiver of its outcome. `size` is its weight in a group of at most MAX_GROUP."""

    transaction: Callable[[H], Any]
    deliver: Callable[[Outcome], None]
    size: int = 1


@final
class Writer(Generic[H]):
    """Owns the writing connection until `close`. All methods must be called on the trio thread."""

    def __init__(
        self,
        database: Database[H],
        path: Path,
        *,
        erased_before: bool = False,
        on_fatal: Callable[[DurableError], None] = lambda error: None,
        on_group: Callable[[Group], None] = lambda group: None,
        quiet_s: float = erasing.QUIET_S,
    ) -> None:
        """Open, check and migrate the file; blocks. Raises what `open_writer` does.

        `erased_before`: what was deleted may still be in the files found. `on_fatal` and `on_group` are called on the
        trio thread, after `deliver`.
        """
        self.raw, self.handle = open_writer(database, path)
        self.commits: Final = Commits()
        self._database = database
        self._path = path
        self._on_fatal = on_fatal
        self._on_group = on_group
        self._quiet_s = quiet_s
        self._queue: queue.SimpleQueue[WriteRequest[H] | None] = queue.SimpleQueue()
        self._next: WriteRequest[H] | None = None  # did not fit into the last group
        self._unanswered = 0
        self._over: DurableError | None = None
        self._lost = trio.Event()
        self._uncleared = erased_before
        self._clear_at = 0.0
        self._connection_in_use = threading.Lock()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to commit submitted transactions; calling it again is harmless."""
        if self._thread is None and self._over is None:
            self._token = trio.lowlevel.current_trio_token()
            self._thread = threading.Thread(target=self._run, name=f"{self._path.name}-writer", daemon=True)
            self._thread.start()

    async def run(self, ready: Callable[[], None]) -> NoReturn:
        """Start, and wait for the fault that ends the writer. Raises the exception that waiting callers were given."""
        self.start()
        ready()
        await self._lost.wait()
        assert self._over is not None
        raise self._over

    def submit(self, request: WriteRequest[H]) -> None:
        """Queue a transaction; its outcome comes to `request.deliver` on the trio thread."""
        if self._over is not None:
            request.deliver(Outcome(error=self._database.not_done(str(self._over))))
        elif self._unanswered >= MOST_WAITING:
            text = f"nothing was written: {MOST_WAITING} transactions of {self._database.name} wait already"
            request.deliver(Outcome(error=self._database.not_done(text)))
        else:
            self._unanswered += 1
            self._queue.put(request)

    async def write(self, transaction: Callable[[H], Any]) -> Any:
        """Run a transaction; return its value after COMMIT. Raises what it raises, `not_done` or `unknown`.

        Cancellation does not withdraw it.
        """
        outcomes: list[Outcome] = []
        answered = trio.Event()

        def deliver(outcome: Outcome) -> None:
            outcomes.append(outcome)
            answered.set()

        self.submit(WriteRequest(transaction, deliver))
        await answered.wait()
        (outcome,) = outcomes
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def empty_log(self) -> bool:
        """Remove deleted data from the log now. Blocks, but not for readers: returns False when one prevented it."""
        with self._connection_in_use:
            return erasing.cleared(self.raw, self._path, compacted_up_to=0)

    def close(self) -> None:
        """Commit what was submitted, then empty the log and close the file; blocks."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        self._over = self._over or self._database.not_done(f"{self._database.name} is closed")
        with self._connection_in_use:
            erasing.cleared(self.raw, self._path, compacted_up_to=0)
            self.raw.close()

    def _run(self) -> None:
        batch: list[WriteRequest[H]] | None = []
        try:
            while (batch := self._next_batch()) is not None:
                if not batch:
                    self._clear()
                    continue
                began = time.perf_counter()
                with self._connection_in_use:
                    transactions = [request.transaction for request in batch]
                    outcomes = run_group(self._database, self.raw, self.handle, transactions, self.commits)
                self._uncleared = self._uncleared or any(
                    outcome.error is None and self._database.erases(outcome.value) for outcome in outcomes
                )
                unknown = next((each.error for each in outcomes if isinstance(each.error, OutcomeUnknown)), None)
                self._hand_back(batch, Group(time.perf_counter() - began, outcomes, self._queue.qsize()), unknown)
                if unknown is not None:
                    return
                batch = []
        except BaseException as error:  # noqa: BLE001 - without a last catch everyone would wait for ever
            text = f"the writer of {self._database.name} failed: {error!r}"
            outcomes = [Outcome(error=self._database.unknown(text)) for _ in batch or []]
            self._hand_back(batch or [], Group(0.0, outcomes, 0), self._database.unknown(text))

    def _next_batch(self) -> list[WriteRequest[H]] | None:
        """Wait for the next group; return an empty one when it is time to clear the file, None at the end."""
        batch: list[WriteRequest[H]] = []
        size = 0
        request = self._next
        self._next = None
        try:
            request = request or self._queue.get(timeout=self._patience())
            while request is not None:
                size += request.size
                if batch and size > MAX_GROUP:
                    self._next = request
                    return batch
                batch.append(request)
                request = self._queue.get_nowait()
        except queue.Empty:
            return batch
        if not batch:
            return None
        self._queue.put(None)  # finish the group first, then end
        return batch

    def _patience(self) -> float | None:
        if not self._uncleared:
            return None
        return max(self._quiet_s, self._clear_at - time.monotonic())

    def _clear(self) -> None:
        with self._connection_in_use:
            self._uncleared = not erasing.cleared(self.raw, self._path, self._database.compacted_up_to)
        self._clear_at = time.monotonic() + self._database.cleared_every_s

    def _hand_back(self, batch: Sequence[WriteRequest[H]], group: Group, fatal: DurableError | None) -> None:
        def deliver_all() -> None:
            self._unanswered -= len(batch)
            if fatal is not None:
                self._over = fatal
            for request, outcome in zip(batch, group.outcomes, strict=True):
                request.deliver(outcome)
            if batch:
                self._on_group(group)
            if fatal is not None:
                self._refuse_waiting(fatal)
                self._lost.set()
                self._on_fatal(fatal)

        assert self._token is not None
        try:
            self._token.run_sync_soon(deliver_all)
        except trio.RunFinishedError:
            return  # no caller is waiting any more

    def _refuse_waiting(self, fatal: DurableError) -> None:
        left = [self._next] if self._next is not None else []
        while True:
            try:
                request = self._queue.get_nowait()
            except queue.Empty:
                break
            if request is not None:
                left.append(request)
        self._unanswered -= len(left)
        for request in left:
            request.deliver(Outcome(error=self._database.not_done(f"nothing was written: {fatal}")))
