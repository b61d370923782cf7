"""The SQLite database of a node's key shares, attestations and conversations.

An acknowledged change is on disk. Deleted and overwritten content is gone from the files once nothing was written for a
second.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast, final

import msgspec
import trio

from engram.durable import Database, Readers, Writer
from engram.durable.database import text_of
from engram.durable.driver import sqlite3
from engram.durable.erasing import COMPACTED_UP_TO, QUIET_S
from engram.memory.errors import TruthUnavailable, TruthUnreadable, WriteUnknown
from engram.memory.store.record_db import remedy

T = TypeVar("T")

_READERS = 2
_QUIET_S = QUIET_S
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


def _create(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA.split(";"):
        if statement.strip():
            connection.execute(statement)


def _fault(error: Exception) -> str | None:
    if isinstance(error, sqlite3.Error):
        return text_of(error)
    if isinstance(error, (msgspec.MsgspecError, json.JSONDecodeError, UnicodeDecodeError)):
        return f"a row is damaged ({error}): `engram miner verify` names it"
    return None


NOTEBOOK = Database[sqlite3.Connection](
    name="the notebook",
    migrations=(_create,),
    wrap=lambda connection: connection,
    not_done=TruthUnavailable,
    unknown=WriteUnknown,
    unusable=TruthUnreadable,
    remedy=remedy,
    fault=_fault,
    kill_point="notebook:",
    compacted_up_to=COMPACTED_UP_TO,
)


@final
class Notebook:
    """Open it with `open`, keep `run` running, close it at the end. Call all methods from the trio thread."""

    def __init__(self, path: Path) -> None:
        self._writer = Writer(NOTEBOOK, path, erased_before=True, quiet_s=_QUIET_S)
        self._readers = Readers(NOTEBOOK, path, _READERS)

    @classmethod
    def open(cls, path: Path) -> Notebook:
        """Open the database, creating it when missing; blocking, so call it before the loop serves.

        Raises TruthUnreadable when it is damaged or newer than this program, TruthUnavailable when the disk is full or
        read-only.
        """
        return cls(path)

    def close(self) -> None:
        """Close all connections; blocking."""
        self._readers.close()
        self._writer.close()

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Make a change and return once it is on disk, not before, even when cancelled.

        An error in `change` undoes it and is raised here. Raises TruthUnavailable (nothing changed), WriteUnknown.
        """
        self._writer.start()
        with trio.CancelScope(shield=True):
            return cast("T", await self._writer.write(change))
        raise AssertionError("a shielded scope is not left by cancellation")  # pyright cannot know

    async def run(self, ready: Callable[[], None]) -> None:
        """Wait until cancelled. Raises WriteUnknown when the writer has failed, which ends the process."""
        await self._writer.run(ready)

    async def empty_log(self) -> None:
        """Remove deleted content from the log now; while a reader blocks that, it is done later."""
        await trio.to_thread.run_sync(self._writer.empty_log)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query on a consistent snapshot in a thread. Raises TruthUnavailable."""
        return await self._readers.read(query)
