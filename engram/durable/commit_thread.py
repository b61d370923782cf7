"""A thread that commits waiting transactions in groups, whatever keeps them.

`submit` queues a transaction and returns at once; `deliver` is called on the trio thread with its outcome, only after
COMMIT. The thread ends on `close`, after a COMMIT of unknown outcome, or because of a bug. In the last two cases all
waiting callers are answered, later ones are refused, and `on_fatal` ends the process.
"""

import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final, Generic, NoReturn, TypeVar

import msgspec
import trio

from engram.durable.errors import DurableError, NotDone, OutcomeUnknown
from engram.durable.group import MAX_GROUP, Commits, Group, Outcome

H = TypeVar("H")

MOST_WAITING: Final = 8_192
"""The maximum number of unanswered transactions; beyond it more are refused."""


class WriteRequest(msgspec.Struct, Generic[H], frozen=True):
    """A transaction and the receiver of its outcome. `size` is its weight in a group of at most `max_group`; after
    `begin_by` (monotonic seconds) it is not begun any more, and was not done."""

    transaction: Callable[[H], Any]
    deliver: Callable[[Outcome], None]
    size: int = 1
    begin_by: float = inf


class CommitThread(ABC, Generic[H]):
    """The queue and its thread. All methods but the abstract ones must be called on the trio thread."""

    max_group: int = MAX_GROUP

    def __init__(
        self,
        name: str,
        not_done: type[NotDone],
        unknown: type[OutcomeUnknown],
        on_fatal: Callable[[DurableError], None],
        on_group: Callable[[Group], None],
    ) -> None:
        self.commits: Final = Commits()
        self._name = name
        self._not_done = not_done
        self._unknown = unknown
        self._on_fatal = on_fatal
        self._on_group = on_group
        self._queue: queue.SimpleQueue[WriteRequest[H] | None] = queue.SimpleQueue()
        self._next: WriteRequest[H] | None = None  # did not fit into the last group
        self._unanswered = 0
        self._over: DurableError | None = None
        self._lost = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _commit(self, transactions: Sequence[Callable[[H], Any]]) -> list[Outcome]:
        """Run the transactions in one COMMIT, in the thread; their outcomes are final."""

    @abstractmethod
    def _patience(self) -> float | None:
        """Return after how many seconds without a transaction `_idle` is called; None: never."""

    @abstractmethod
    def _idle(self) -> DurableError | None:
        """Do what is due when nothing is written, in the thread. An error returned ends the writer."""

    def _is_overdue(self) -> bool:
        """Return whether `_idle` is to be called although there is something to write."""
        return False

    @abstractmethod
    def _close(self) -> None:
        """Release what the thread has written to; it has ended."""

    def start(self) -> None:
        """Start to commit submitted transactions; calling it again is harmless."""
        if self._thread is None and self._over is None:
            self._token = trio.lowlevel.current_trio_token()
            self._thread = threading.Thread(target=self._run, name=f"{self._name}-writer", daemon=True)
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
            request.deliver(Outcome(error=self._not_done(str(self._over))))
        elif self._unanswered >= MOST_WAITING:
            text = f"nothing was written: {MOST_WAITING} transactions of {self._name} wait already"
            request.deliver(Outcome(error=self._not_done(text)))
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

    def close(self) -> None:
        """Commit what was submitted, then release the connection; blocks."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        self._over = self._over or self._not_done(f"{self._name} is closed")
        self._close()

    def _run(self) -> None:
        batch: list[WriteRequest[H]] | None = []
        try:
            while (batch := self._next_batch()) is not None:
                if not batch:
                    if (fatal := self._idle()) is not None:
                        self._hand_back([], Group(0.0, [], 0), fatal)
                        return
                    continue
                batch = self._still_wanted(batch)
                if not batch:
                    continue
                began = time.perf_counter()
                outcomes = self._commit([request.transaction for request in batch])
                fatal = next((each.error for each in outcomes if isinstance(each.error, OutcomeUnknown)), None)
                self._hand_back(batch, Group(time.perf_counter() - began, outcomes, self._queue.qsize()), fatal)
                if fatal is not None:
                    return
                batch = []
        except BaseException as error:  # noqa: BLE001 - without a last catch everyone would wait for ever
            text = f"the writer of {self._name} failed: {error!r}"
            outcomes = [Outcome(error=self._unknown(text)) for _ in batch or []]
            self._hand_back(batch or [], Group(0.0, outcomes, 0), self._unknown(text))

    def _next_batch(self) -> list[WriteRequest[H]] | None:
        """Wait for the next group; return an empty one when it is time for `_idle`, None at the end."""
        batch: list[WriteRequest[H]] = []
        if self._is_overdue():
            return batch
        size = 0
        request = self._next
        self._next = None
        try:
            request = request or self._queue.get(timeout=self._patience())
            while request is not None:
                size += request.size
                if batch and size > self.max_group:
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

    def _still_wanted(self, batch: list[WriteRequest[H]]) -> list[WriteRequest[H]]:
        """Answer those that have waited for too long; return the others."""
        now = time.monotonic()
        late = [request for request in batch if request.begin_by < now]
        if late:
            error = self._not_done(f"nothing was written: {self._name} is too slow for all that waits")
            self.commits.failed += len(late)
            self._hand_back(late, Group(0.0, [Outcome(error=error) for _ in late], self._queue.qsize()), None)
        return [request for request in batch if request.begin_by >= now]

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
            request.deliver(Outcome(error=self._not_done(f"nothing was written: {fatal}")))
