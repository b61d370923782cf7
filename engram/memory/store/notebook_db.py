"""What a node keeps beside its records: key shares, attestations, conversations. A SQLite database of its own.

One connection, one transaction at a time in a worker thread; WAL, synchronous=FULL: what is acknowledged is on disk.
What was deleted or overwritten, by whatever change, is out of the files once nothing was written for a second.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, final

import msgspec
import trio

from engram.durable.driver import sqlite3
from engram.memory.errors import TruthUnavailable, TruthUnreadable, WriteUnknown
from engram.memory.upkeep import residue

T = TypeVar("T")

_LARGEST_CHECKED = 256 * 1024**2
"""Bytes up to which a database is checked page by page when opened (about a second)."""
_HELP = "save what is whole with `engram miner repair {0}`, or `engram miner restore BACKUP {0} --force`"
_BUSY_MS = 5_000
_QUIET_S = residue.QUIET_S
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE key_shares (
    owner TEXT NOT NULL,
    namespace TEXT NOT NULL,
    share_index INTEGER NOT NULL,
    share_hex TEXT NOT NULL,
    threshold INTEGER NOT NULL,
    total INTEGER NOT NULL,
    stored_at REAL NOT NULL,
    PRIMARY KEY (owner, namespace)
) STRICT;
CREATE TABLE attestations (namespace TEXT PRIMARY KEY, owner BLOB NOT NULL, attested_at REAL NOT NULL) STRICT;
CREATE TABLE conversations (
    owner BLOB NOT NULL,
    user_id TEXT NOT NULL,
    conv_id TEXT NOT NULL,
    title TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    messages TEXT NOT NULL,
    PRIMARY KEY (owner, user_id, conv_id)
) STRICT;
"""


@final
class Notebook:
    """Open it with `open`, keep `run` running, close it at the end. All methods are for the trio thread."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._turn = trio.CapacityLimiter(1)
        self._written = trio.Event()

    @classmethod
    def open(cls, path: Path) -> Notebook:
        """Opens or makes the database; blocking, before the loop serves anyone.

        Raises TruthUnreadable when it is damaged or newer than this program, TruthUnavailable when the disk is full or
        read-only.
        """
        try:
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000)
            try:
                _prepare(path, connection)
            except BaseException:
                connection.close()
                raise
        except sqlite3.OperationalError as error:
            raise TruthUnavailable(f"{path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise TruthUnreadable(f"{path}: {error}; {_HELP.format(path.parent)}") from error
        return cls(connection, path)

    def close(self) -> None:
        """Closes the connection; blocking."""
        self._connection.close()

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Makes a change and returns when it is on disk.

        What `change` raises undoes it and comes back. Raises TruthUnavailable (nothing changed), WriteUnknown.
        """
        with trio.CancelScope(shield=True) as scope:
            try:
                return await trio.to_thread.run_sync(self._write, change, limiter=self._turn)
            finally:
                self._written.set()
        raise AssertionError(scope)  # a shielded scope that nobody cancels swallows nothing

    async def run(self, ready: Callable[[], None]) -> None:
        """Takes what was deleted or overwritten out of the files when it is quiet after a write, until cancelled."""
        ready()
        cleared = False  # for all that is known of the files that were found
        while True:
            with trio.move_on_after(math.inf if cleared else _QUIET_S) as quiet:
                await self._written.wait()
            if quiet.cancelled_caught:
                cleared = await trio.to_thread.run_sync(
                    residue.cleared, self._connection, self._path, _BUSY_MS, limiter=self._turn
                )
            else:
                self._written, cleared = trio.Event(), False

    async def empty_log(self) -> None:
        """Takes what was deleted out of the log at once, unless something is in the way; `run` does it later then."""
        await trio.to_thread.run_sync(self._empty_log, limiter=self._turn)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Runs a query. Raises TruthUnavailable."""
        return await trio.to_thread.run_sync(self._read, query, limiter=self._turn)

    def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return query(self._connection)
        except sqlite3.Error as error:
            raise TruthUnavailable(f"the notebook cannot be read: {error}") from error
        except (msgspec.MsgspecError, json.JSONDecodeError, UnicodeDecodeError) as error:
            damaged = f"a row of the notebook is damaged ({error}): `engram miner verify` names it"
            raise TruthUnavailable(damaged) from error.with_traceback(None)

    def _empty_log(self) -> None:
        self._connection.execute("PRAGMA busy_timeout = 0")
        with contextlib.suppress(sqlite3.Error):
            residue.emptied(self._connection)
        self._connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")

    def _write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection
        committing = False
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = change(connection)
            committing = True
            connection.execute("COMMIT")
            return result
        except BaseException as error:
            unfinished = connection.in_transaction
            if unfinished:
                connection.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error):
                raise
            outcome = WriteUnknown if committing and not unfinished else TruthUnavailable
            raise outcome(f"the notebook cannot be written: {error}") from error


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
        connection.execute(f"PRAGMA {pragma}")
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > SCHEMA_VERSION:
        raise TruthUnreadable(f"{path} has schema {found}, this program knows {SCHEMA_VERSION}")
    if path.stat().st_size <= _LARGEST_CHECKED:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise TruthUnreadable(f"{path} is damaged: {verdict}; {_HELP.format(path.parent)}")
    if found == 0:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            if statement.strip():
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
