"""Files of what is derived from the truth: SQLite, made anew whenever they are missing, damaged or of another truth.

They are not synced with each commit: what a power failure takes is derived once more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from engram.durable.connection import BUSY_TIMEOUT_MS, LARGEST_CHECKED
from engram.durable.driver import code_of, sqlite3

DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""Codes by which SQLite says that a file is damaged."""
_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "secure_delete = ON",
    "wal_autocheckpoint = 1000",
    "temp_store = MEMORY",
)
_META: Final = "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT"


def opened(path: Path, schema: str, facts: Mapping[str, str]) -> sqlite3.Connection:
    """Open the file that has these facts; any other one is made anew. Raises sqlite3.Error, OSError."""
    raw = _connected(path)
    try:
        if _is_mine(raw, path, facts):
            return raw
    except sqlite3.DatabaseError as error:
        if code_of(error) not in DAMAGED:
            raw.close()
            raise
    raw.close()
    return new(path, schema, facts)


def new(path: Path, schema: str, facts: Mapping[str, str]) -> sqlite3.Connection:
    """Make the file anew, at change 0. No connection of this process may have it open for writing."""
    remove(path)
    raw = _connected(path)
    with transaction(raw):
        for statement in (_META, *schema.split(";")):
            raw.execute(statement)
        raw.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", [*facts.items(), ("sequence", "0")])
    return raw


def remove(path: Path) -> None:
    """Remove the file and its logs. Raises OSError."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def sequence_of(raw: sqlite3.Connection) -> int:
    """Return the last change that the file has."""
    return int(fact(raw, "sequence") or 0)


def note_sequence(raw: sqlite3.Connection, sequence: int) -> None:
    """Store the last change that the file has, in the caller's transaction."""
    raw.execute("UPDATE meta SET value = ? WHERE key = 'sequence'", (str(sequence),))


def fact(raw: sqlite3.Connection, key: str) -> str | None:
    """Return a fact of the file about itself."""
    row = raw.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


@contextlib.contextmanager
def transaction(raw: sqlite3.Connection) -> Iterator[None]:
    """Run the body in one transaction."""
    raw.execute("BEGIN IMMEDIATE")
    try:
        yield
        raw.execute("COMMIT")
    except BaseException:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise


def _connected(path: Path) -> sqlite3.Connection:
    """Open the file; one that is no database is removed first."""
    for attempt in range(2):
        raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000)
        try:
            for pragma in _PRAGMAS:
                raw.execute(f"PRAGMA {pragma}")
            return raw
        except sqlite3.DatabaseError as error:
            raw.close()
            if attempt or code_of(error) not in DAMAGED:
                raise
            remove(path)
    raise AssertionError("unreachable")


def _is_mine(raw: sqlite3.Connection, path: Path, facts: Mapping[str, str]) -> bool:
    if raw.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchone() is None:
        return False
    if {key: fact(raw, key) for key in facts} != facts:
        return False
    if path.stat().st_size > LARGEST_CHECKED:
        return True
    return bool(raw.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
