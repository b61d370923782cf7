"""The only writer of a SQLite database: a thread that commits waiting transactions in groups.

Deleted data is removed from the files when nothing was written for a while.
"""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, final

from engram.durable import erasing
from engram.durable.commit_thread import CommitThread, WriteRequest
from engram.durable.connection import open_writer
from engram.durable.database import Database
from engram.durable.errors import DurableError
from engram.durable.group import Group, Outcome, run_group

__all__ = ["WriteRequest", "Writer"]

H = TypeVar("H")


@final
class Writer(CommitThread[H]):
    """Owns the writing connection until `close`."""

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
        super().__init__(database.name, database.not_done, database.unknown, on_fatal, on_group)
        self.raw, self.handle = open_writer(database, path)
        self._database = database
        self._path = path
        self._quiet_s = quiet_s
        self._uncleared = erased_before
        self._clear_at = 0.0
        self._connection_in_use = threading.Lock()

    def empty_log(self) -> bool:
        """Remove deleted data from the log now. Blocks, but not for readers: returns False when one prevented it."""
        with self._connection_in_use:
            return erasing.cleared(self.raw, self._path, compacted_up_to=0)

    def _commit(self, transactions: Sequence[Callable[[H], Any]]) -> list[Outcome]:
        with self._connection_in_use:
            outcomes = run_group(self._database, self.raw, self.handle, transactions, self.commits)
        self._uncleared = self._uncleared or any(
            outcome.error is None and self._database.erases(outcome.value) for outcome in outcomes
        )
        return outcomes

    def _patience(self) -> float | None:
        if not self._uncleared:
            return None
        return max(self._quiet_s, self._clear_at - time.monotonic())

    def _idle(self) -> None:
        with self._connection_in_use:
            self._uncleared = not erasing.cleared(self.raw, self._path, self._database.compacted_up_to)
        self._clear_at = time.monotonic() + self._database.cleared_every_s

    def _close(self) -> None:
        """Empty the log and close the file."""
        with self._connection_in_use:
            erasing.cleared(self.raw, self._path, compacted_up_to=0)
            self.raw.close()
