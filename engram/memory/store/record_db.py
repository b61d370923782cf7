"""The truth: every record a node holds, in a SQLite database of its own. What is acknowledged is on disk.

One writer: requests wait in a bounded queue; those that wait are written in one transaction and answered after
its COMMIT (WAL, synchronous=FULL). Statements only fail when the database does, so the group stands or falls
together. Readers are query_only and never checkpoint, so that the writer is the only connection that does.
"""

from __future__ import annotations

import contextlib
import math
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import trio

from engram.clock import Clock, Ids
from engram.durable.driver import sqlite3
from engram.memory.errors import TruthUnavailable, TruthUnreadable, WriteUnknown
from engram.memory.model import Change, Counts, Deleted, Entry, Excerpt, Record
from engram.memory.store import deletions, record_sql
from engram.memory.store.deletions import Batch, May
from engram.memory.upkeep import residue

T = TypeVar("T")

_LARGEST_GROUP = 256
"""Entries of one transaction, or of one request if that has more."""
_TOLD_AT_ONCE = 32
"""Changes told of between two turns of other tasks: about 1 ms."""
_READERS = 2
_BUSY_MS = 5_000
_QUIET_S = residue.QUIET_S
_READ_BUDGET_S = 2.0
"""A read that takes longer (a filter over very many records) is given up, so that readers stay free."""
_LARGEST_CHECKED = 256 * 1024**2
"""Bytes up to which a database is checked page by page when opened (about a second)."""
_HELP = "put a backup in its place with `engram miner restore BACKUP {0} --force`, or `engram miner repair {0}`"

Transaction = Callable[[sqlite3.Connection], tuple[T, Sequence[Change]]]


class _Write(Generic[T]):
    """A transaction that waits for its turn, then for its commit."""

    def __init__(self, transaction: Transaction[T], entries: int) -> None:
        self.transaction = transaction
        self.entries = entries
        self.done = trio.Event()
        self.result: T | None = None
        self.error: Exception | None = None

    async def outcome(self) -> T:
        await self.done.wait()
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]  # set with `done` whenever there is no error


class Truth:
    """Open it with `open`, keep `run` running, close it at the end. All methods are for the trio thread."""

    def __init__(self, path: Path, writer: sqlite3.Connection, clock: Clock) -> None:
        self._path = path
        self._writer = writer
        self._clock = clock
        self._waiting: list[_Write[object]] = []
        self._arrived = trio.Event()
        self._room = trio.CapacityLimiter(4 * _LARGEST_GROUP)
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._reading = trio.CapacityLimiter(_READERS)
        for _ in range(_READERS):
            self._readers.put(_connect_reader(path))
        self.truth_id = record_sql.read_meta(writer, "truth_id") or ""
        self.pruned_to = int(record_sql.read_meta(writer, "pruned_to") or 0)
        self.on_changes: Callable[[Sequence[Change]], None] = lambda changes: None
        """Called on the trio thread with the changes of each commit, in order, in pieces, before anyone is answered."""

    @classmethod
    def open(cls, path: Path, clock: Clock, ids: Ids) -> Truth:
        """Opens or makes the database; blocking, before the loop serves anyone.

        Raises TruthUnreadable when it is damaged or newer than this program, TruthUnavailable when the disk is
        full or read-only.
        """
        try:
            connection = _connect_writer(path)
            try:
                _prepare(path, connection, ids)
                return cls(path, connection, clock)
            except BaseException:
                connection.close()
                raise
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise TruthUnavailable(f"{path}: {error}") from error
            raise TruthUnreadable(f"{path}: {error}; {_HELP.format(path.parent)}") from error

    async def run(self, ready: Callable[[], None]) -> None:
        """Writes what is asked for, group by group, until cancelled; takes what was deleted out of the files when that
        is quiet after a deletion."""
        ready()
        erased = True  # for all that is known of the files that were found
        while True:
            with trio.move_on_after(_QUIET_S if erased else math.inf) as quiet:
                await self._arrived.wait()
            if quiet.cancelled_caught:
                erased = not await trio.to_thread.run_sync(residue.cleared, self._writer, self._path, _BUSY_MS)
                continue
            self._arrived = trio.Event()
            while self._waiting:
                group = self._next_group()
                changes: list[Change] = []
                try:
                    with trio.CancelScope(shield=True):
                        changes = await trio.to_thread.run_sync(self._commit, group)
                    erased = erased or any(isinstance(change, Deleted) for change in changes)
                    for start in range(0, len(changes), _TOLD_AT_ONCE):
                        self.on_changes(changes[start : start + _TOLD_AT_ONCE])
                        await trio.lowlevel.cancel_shielded_checkpoint()
                finally:
                    for write in group:
                        write.done.set()

    def close(self) -> None:
        """Closes all connections; blocking."""
        while not self._readers.empty():
            self._readers.get().close()
        self._writer.close()

    async def put(self, entry: Entry) -> Record:
        """Stores an entry durably; one that is there already stays as it is."""
        (record,) = await self.put_all([entry])
        return record

    async def put_all(self, entries: Sequence[Entry]) -> list[Record]:
        """Stores entries durably, all of them or none; one that is there already stays as it is."""
        now = self._clock.now()
        return await self._write(lambda connection: record_sql.put_all(connection, entries, now), len(entries))

    async def delete(self, namespace: str, cid: str) -> Deleted | None:
        """Takes a record out durably; None when there was none."""
        return await self._write(lambda connection: record_sql.delete(connection, namespace, cid))

    async def delete_all(self, namespace: str, cids: Sequence[str], may: May) -> Batch:
        """Takes out durably, in one transaction, the records that are there and may be deleted."""
        return await self._write(lambda connection: deletions.delete_all(connection, namespace, cids, may), len(cids))

    async def prune(self, sequence: int) -> None:
        """Forgets deletions up to `sequence`."""
        await self._write(lambda connection: record_sql.prune(connection, sequence))
        self.pruned_to = max(self.pruned_to, sequence)

    async def note(self, facts: Mapping[str, str]) -> None:
        """Keeps facts about the node beside the records."""
        await self._write(lambda connection: record_sql.note(connection, facts))

    async def noted(self, key: str) -> str | None:
        """Returns a fact that was kept."""
        return await self.read(lambda connection: record_sql.read_meta(connection, key))

    async def get(self, namespace: str, cid: str) -> Record | None:
        """Returns the record stored under that namespace and CID."""
        return await self.read(lambda connection: record_sql.get(connection, namespace, cid))

    async def by_ids(self, namespace: str, ids: Sequence[int]) -> dict[int, Excerpt]:
        """Returns those of the records that are there and in that namespace."""
        return await self.read(lambda connection: record_sql.by_ids(connection, namespace, ids)) if ids else {}

    async def count(self) -> Counts:
        """Returns how many records there are."""
        return await self.read(record_sql.count)

    async def free_bytes(self) -> int:
        """Returns how many bytes of the database's file wait to be used again. Raises TruthUnavailable."""
        return await self.read(_free_bytes)

    async def last_sequence(self) -> int:
        """Returns the number of the last committed change."""
        return await self.read(record_sql.last_sequence)

    async def changes_since(self, sequence: int, limit: int) -> list[Change]:
        """Returns the next changes after `sequence`, in order."""
        return await self.read(lambda connection: record_sql.changes_since(connection, sequence, limit))

    async def read(self, query: Callable[[sqlite3.Connection], T], budget_s: float = _READ_BUDGET_S) -> T:
        """Runs a query on a consistent snapshot in a thread.

        Raises TruthUnavailable when it cannot be had, or not within `budget_s` seconds.
        """
        return await trio.to_thread.run_sync(self._read, query, budget_s, limiter=self._reading)

    async def _write(self, transaction: Transaction[T], entries: int = 1) -> T:
        async with self._room:
            write = _Write(transaction, entries)
            self._waiting.append(write)  # type: ignore[arg-type]  # the queue holds writes of any result
            self._arrived.set()
            return await write.outcome()

    def _next_group(self) -> list[_Write[object]]:
        count = entries = 0
        for write in self._waiting:
            entries += write.entries
            if count and entries > _LARGEST_GROUP:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    def _read(self, query: Callable[[sqlite3.Connection], T], budget_s: float) -> T:
        connection = self._readers.get()
        deadline = time.monotonic() + budget_s
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
        try:
            connection.execute("BEGIN")
            try:
                return query(connection)
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise TruthUnavailable(f"the record database cannot be read: {record_sql.fault_of(error)}") from error
        except record_sql.DAMAGED as error:
            # an open cursor in its frames would keep this reader at this snapshot
            raise TruthUnavailable(record_sql.fault_of(error)) from error.with_traceback(None)
        finally:
            self._readers.put(connection)

    def _commit(self, group: Sequence[_Write[object]]) -> list[Change]:
        connection = self._writer
        try:
            connection.execute("BEGIN IMMEDIATE")
            changes = [change for write in group for change in _attempt(connection, write)]
        except sqlite3.Error as error:
            _roll_back(connection)
            _fail(group, TruthUnavailable(f"the record database cannot be written: {record_sql.fault_of(error)}"))
            return []
        except record_sql.DAMAGED as error:
            _roll_back(connection)
            _fail(group, TruthUnavailable(record_sql.fault_of(error)))
            return []
        except BaseException:
            _roll_back(connection)
            _fail(group, TruthUnavailable("the record database is restarting"))
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            still_open = connection.in_transaction
            _roll_back(connection)
            outcome = TruthUnavailable if still_open else WriteUnknown
            _fail(group, outcome(f"the record database cannot be written: {error}"))
            return []
        return changes


def _free_bytes(connection: sqlite3.Connection) -> int:
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size"))
    return int(pages) * int(size)


def _attempt(connection: sqlite3.Connection, write: _Write[object]) -> Sequence[Change]:
    before = connection.total_changes
    try:
        write.result, changes = write.transaction(connection)
    except (sqlite3.Error, *record_sql.DAMAGED) as error:
        if connection.total_changes != before or not record_sql.is_damage(error):
            raise
        write.error = TruthUnavailable(record_sql.fault_of(error))
        return []
    return changes


def _fail(group: Sequence[_Write[object]], error: Exception) -> None:
    for write in group:
        write.error = error


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _connect_writer(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_reader(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


def _prepare(path: Path, connection: sqlite3.Connection, ids: Ids) -> None:
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > record_sql.SCHEMA_VERSION:
        raise TruthUnreadable(f"the record database has schema {found}, this program knows {record_sql.SCHEMA_VERSION}")
    if path.stat().st_size <= _LARGEST_CHECKED:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise TruthUnreadable(f"{path} is damaged: {verdict}; {_HELP.format(path.parent)}")
    if found == 0:
        connection.execute("BEGIN IMMEDIATE")
        record_sql.create_schema(connection, ids.uuid4())
        connection.execute("COMMIT")
    else:
        with contextlib.suppress(sqlite3.OperationalError):  # a disk that is full: records are found without, slower
            record_sql.index_references(connection)
