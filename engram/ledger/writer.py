"""The one writer: a thread that turns whatever is waiting into one group commit after another.

`submit` hands a transaction over and returns at once; `deliver` is called on the trio thread with every outcome
of a group, only after its COMMIT.
"""

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import final

import msgspec
import trio

from engram.ledger.connection import open_writer
from engram.ledger.errors import CommitUnknown, LedgerError
from engram.ledger.group import MAX_GROUP, Commits, Group, Outcome, Transaction, run_group


class Request(msgspec.Struct, frozen=True):
    """A transaction and who gets its outcome."""

    transaction: Transaction
    deliver: Callable[[Outcome], None]


@final
class Writer:
    """Owns the writing connection. Made by `open`, ended by `close`."""

    def __init__(
        self,
        path: Path,
        on_fatal: Callable[[LedgerError], None],
        on_group: Callable[[Group], None] = lambda group: None,
    ) -> None:
        """`on_fatal` and `on_group` are called on the trio thread, after the callers have their outcomes."""
        self._path = path
        self._on_fatal = on_fatal
        self._on_group = on_group
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._opened: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self.commits = Commits()

    async def open(self) -> None:
        """Open the file in the writer's thread. Raises LedgerUnusable or LedgerUnavailable."""
        self._thread.start()
        failure = await trio.to_thread.run_sync(self._opened.get)
        if failure is not None:
            raise failure

    def submit(self, request: Request) -> None:
        """Queue one transaction; its outcome comes to `request.deliver` on the trio thread."""
        self._queue.put(request)

    async def close(self) -> None:
        """Commit what was submitted, then close the file."""
        self._queue.put(None)
        await trio.to_thread.run_sync(self._thread.join)

    def _run(self) -> None:
        try:
            connection = open_writer(self._path)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the opener waits for it
            self._opened.put(error)
            return
        self._opened.put(None)
        try:
            while batch := self._next_batch():
                began = time.perf_counter()
                outcomes = run_group(connection, [request.transaction for request in batch], self.commits)
                self._hand_back(batch, Group(time.perf_counter() - began, outcomes, self._queue.qsize()))
        finally:
            connection.close()
            connection.engine.dispose()

    def _next_batch(self) -> list[Request]:
        batch: list[Request] = []
        request = self._queue.get()
        while request is not None:
            batch.append(request)
            if len(batch) == MAX_GROUP:
                return batch
            try:
                request = self._queue.get_nowait()
            except queue.Empty:
                return batch
        if batch:
            self._queue.put(None)  # finish the group first, then end
        return batch

    def _hand_back(self, batch: list[Request], group: Group) -> None:
        def deliver_all() -> None:
            for request, outcome in zip(batch, group.outcomes, strict=True):
                request.deliver(outcome)
            self._on_group(group)
            fatal = next((o.error for o in group.outcomes if isinstance(o.error, CommitUnknown)), None)
            if fatal is not None:
                self._on_fatal(fatal)

        try:
            self._token.run_sync_soon(deliver_all)
        except trio.RunFinishedError:
            return  # nobody is left to be told
