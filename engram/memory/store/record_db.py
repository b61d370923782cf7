"""The truth: every record a node holds, in a SQLite database of its own. What is acknowledged is on disk.

Waiting writes share one transaction (engram.durable). Each is answered after the COMMIT, once its changes were handed
on. An unreadable record fails only the request that needs it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import trio

from engram.clock import Clock, Ids
from engram.durable import Database, DurableError, Outcome, Readers, Writer, WriteRequest
from engram.durable.driver import sqlite3
from engram.durable.erasing import COMPACTED_UP_TO, QUIET_S
from engram.durable.readers import READ_BUDGET_S
from engram.memory.errors import TruthUnavailable, TruthUnreadable, WriteUnknown
from engram.memory.model import Change, Counts, Deleted, Entry, Excerpt, Record
from engram.memory.store import deletions, record_sql, succession
from engram.memory.store.deletions import Batch, May

T = TypeVar("T")

_CHANGES_PER_TURN = 32
"""Changes reported before other tasks get a turn: about 1 ms."""
_READERS = 2
_WAITING = 1_024
_QUIET_S = QUIET_S

Transaction = Callable[[sqlite3.Connection], tuple[T, Sequence[Change]]]


def remedy(path: Path) -> str:
    """Return the advice for a damaged file of a node."""
    return (
        f"put a backup in its place with `engram miner restore BACKUP {path.parent} --force`,"
        f" or save what is whole with `engram miner repair {path.parent}`"
    )


def database(ids: Ids) -> Database[sqlite3.Connection]:
    """Return the definition of the record database for engram.durable; a new one gets its id from `ids`."""
    return Database[sqlite3.Connection](
        name="the record database",
        migrations=(lambda connection: record_sql.create_first(connection, ids.uuid4()), succession.add_columns),
        wrap=lambda connection: connection,
        not_done=TruthUnavailable,
        unknown=WriteUnknown,
        unusable=TruthUnreadable,
        remedy=remedy,
        fault=_fault,
        erases=lambda value: any(isinstance(change, Deleted) for change in value[1]),
        kill_point="records:",
        compacted_up_to=COMPACTED_UP_TO,
    )


class _Write:
    """A write that waits for its turn, for its commit, then for its changes to be handed on."""

    def __init__(self) -> None:
        self.outcome = Outcome()
        self.done = trio.Event()


class Truth:
    """Open it with `open`, keep `run` running, close it at the end. Call all methods from the trio thread."""

    def __init__(self, path: Path, clock: Clock, ids: Ids) -> None:
        kept = database(ids)
        self._clock = clock
        self._writer = Writer(kept, path, erased_before=True, on_fatal=self._fail, quiet_s=_QUIET_S)
        self._readers = Readers(kept, path, _READERS)
        self._room = trio.CapacityLimiter(_WAITING)
        self._committed: list[_Write] = []
        self._arrived = trio.Event()
        self._fatal: DurableError | None = None
        self.on_changes: Callable[[Sequence[Change]], None] = lambda changes: None
        """Called on the trio thread with the changes of each commit, in pieces, before its writes are answered."""
        try:
            with contextlib.suppress(sqlite3.OperationalError):  # a full disk: lookups work without the index
                record_sql.index_references(self._writer.raw)
                succession.index_current(self._writer.raw)
            self.truth_id = record_sql.read_meta(self._writer.raw, "truth_id") or ""
            self.pruned_to = int(record_sql.read_meta(self._writer.raw, "pruned_to") or 0)
        except BaseException:
            self._writer.close()
            raise

    @classmethod
    def open(cls, path: Path, clock: Clock, ids: Ids) -> Truth:
        """Open the database, creating it when missing; blocking, so call it before the loop serves.

        Raises TruthUnreadable when it is damaged or newer than this program, TruthUnavailable when the disk is
        full or read-only.
        """
        try:
            return cls(path, clock, ids)
        except sqlite3.Error as error:
            raise TruthUnreadable(f"{path}: {error}; {remedy(path)}") from error

    async def run(self, ready: Callable[[], None]) -> None:
        """Carry out writes until cancelled. Raises WriteUnknown when the writer has failed; the process then ends, and
        its next start finds out what was written."""
        self._writer.start()
        ready()
        while self._fatal is None or self._committed:  # what is durable is answered before the end
            await self._arrived.wait()
            self._arrived = trio.Event()
            committed, self._committed = self._committed, []
            changes = [change for write in committed for change in write.outcome.value[1]]
            try:
                for start in range(0, len(changes), _CHANGES_PER_TURN):
                    self.on_changes(changes[start : start + _CHANGES_PER_TURN])
                    await trio.lowlevel.cancel_shielded_checkpoint()
            finally:
                for write in committed:
                    write.done.set()
        raise self._fatal

    def close(self) -> None:
        """Close all connections; blocking."""
        self._readers.close()
        self._writer.close()

    async def put(self, entry: Entry) -> Record:
        """Store an entry durably; an existing one stays as it is."""
        (record,) = await self.put_all([entry])
        return record

    async def put_all(self, entries: Sequence[Entry]) -> list[Record]:
        """Store entries durably, all of them or none; an existing one stays as it is."""
        now = self._clock.now()
        return await self._write(lambda connection: record_sql.put_all(connection, entries, now), len(entries))

    async def delete(self, namespace: str, cid: str) -> Deleted | None:
        """Delete a record durably; return None when there was none."""
        return await self._write(lambda connection: record_sql.delete(connection, namespace, cid))

    async def delete_all(self, namespace: str, cids: Sequence[str], may: May) -> Batch:
        """Delete durably, in one transaction, the records that exist and may be deleted."""
        return await self._write(lambda connection: deletions.delete_all(connection, namespace, cids, may), len(cids))

    async def prune(self, sequence: int) -> None:
        """Drop the list of deletions up to `sequence`."""
        await self._write(lambda connection: record_sql.prune(connection, sequence))
        self.pruned_to = max(self.pruned_to, sequence)

    async def note(self, facts: Mapping[str, str]) -> None:
        """Store facts about the node."""
        await self._write(lambda connection: record_sql.note(connection, facts))

    async def noted(self, key: str) -> str | None:
        """Return a stored fact, or None."""
        return await self.read(lambda connection: record_sql.read_meta(connection, key))

    async def get(self, namespace: str, cid: str) -> Record | None:
        """Return the record stored under that namespace and CID."""
        return await self.read(lambda connection: record_sql.get(connection, namespace, cid))

    def now(self) -> float:
        """Return the time (unix seconds) by which records are stored and expire."""
        return self._clock.now()

    async def by_ids(self, namespace: str, ids: Sequence[int], *, current: bool = False) -> dict[int, Excerpt]:
        """Return the records with these ids that exist in that namespace, or only those that are current."""
        if not ids:
            return {}
        at = self.now() if current else None
        return await self.read(lambda connection: record_sql.by_ids(connection, namespace, ids, at))

    async def count(self) -> Counts:
        """Return how many records there are."""
        return await self.read(record_sql.count)

    async def free_bytes(self) -> int:
        """Return how many bytes of the database file are free for reuse. Raises TruthUnavailable."""
        return await self.read(_free_bytes)

    async def last_sequence(self) -> int:
        """Return the number of the last committed change."""
        return await self.read(record_sql.last_sequence)

    async def changes_since(self, sequence: int, limit: int) -> list[Change]:
        """Return the next changes after `sequence`, in order."""
        return await self.read(lambda connection: record_sql.changes_since(connection, sequence, limit))

    async def read(self, query: Callable[[sqlite3.Connection], T], budget_s: float = READ_BUDGET_S) -> T:
        """Run a query on a consistent snapshot in a thread.

        Raises TruthUnavailable when the query fails or takes longer than `budget_s` seconds.
        """
        return await self._readers.read(query, budget_s)

    async def _write(self, transaction: Transaction[T], entries: int = 1) -> T:
        write = _Write()

        def deliver(outcome: Outcome) -> None:
            write.outcome = outcome
            if outcome.error is not None:
                write.done.set()
            else:
                self._committed.append(write)
                self._arrived.set()

        async with self._room:
            self._writer.submit(WriteRequest(transaction, deliver, entries))
            await write.done.wait()
        if write.outcome.error is not None:
            raise write.outcome.error
        result: T = write.outcome.value[0]
        return result

    def _fail(self, error: DurableError) -> None:
        self._fatal = error
        self._arrived.set()


def _fault(error: Exception) -> str | None:
    return record_sql.fault_of(error) if isinstance(error, (sqlite3.Error, *record_sql.DAMAGED)) else None


def _free_bytes(connection: sqlite3.Connection) -> int:
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size"))
    return int(pages) * int(size)
