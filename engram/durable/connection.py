"""Opens database files: WAL, synchronous=FULL, one connection that writes and checkpoints.

Readers cannot write and never checkpoint, not even when the last of them closes: they open the file read-only. Two
connections that write or checkpoint at the same moment are what SQLite's WAL-reset bug needs.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Final, TypeVar

from engram import files
from engram.durable.database import Database, original
from engram.durable.driver import code_of, sqlite3

H = TypeVar("H")

BUSY_TIMEOUT_MS: Final = 5_000
LARGEST_CHECKED: Final = 256 * 1024**2
"""Files up to this many bytes are checked page by page when opened (about a second). Larger ones are checked by
`engram ledger check` and `engram miner verify`, so that a start does not take minutes."""
_STEPS_A_LOOK: Final = 100_000
"""Instructions of SQLite's virtual machine between two checks of the time: below 1 ms."""
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_WRITER_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "secure_delete = ON",
    "wal_autocheckpoint = 1000",
    "temp_store = MEMORY",
)
_READER_PRAGMAS: Final = ("query_only = ON", "wal_autocheckpoint = 0", "temp_store = MEMORY")


def open_writer(database: Database[H], path: Path | None) -> tuple[sqlite3.Connection, H]:
    """Open, check and migrate a file, or create it; return the writing connection and the handle for transactions.

    `path` None is a private database in memory (tests). Blocks. Raises the database's `unusable` when the file is
    damaged, not a database, or newer than this program, and `not_done` when the disk refuses.
    """
    place = str(path) if path else "memory"
    raw: sqlite3.Connection | None = None
    try:
        raw = sqlite3.connect(
            path or ":memory:", isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000
        )
        _set_up(raw)
        _refuse_newer(database, raw)
        if path and path.stat().st_size <= LARGEST_CHECKED:
            verdict = raw.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise database.unusable(f"{place} is damaged ({verdict}); {database.remedy(path)}")
        if path and database.kept_before_migration:
            _keep_before_migration(database, raw, path)
        handle = database.wrap(raw)
        migrate(database, raw, handle)
    except BaseException as error:
        if raw is not None:
            raw.close()
        found = original(error)  # a step of a migration may raise SQLite's error wrapped
        if not isinstance(found, sqlite3.Error):
            raise
        if code_of(found) in _DAMAGED:
            remedy = database.remedy(path) if path else ""
            raise database.unusable(
                f"{place} is not a usable {database.name.removeprefix('the ')}: {found}; {remedy}"
            ) from error
        raise database.not_done(
            f"{place} cannot be opened: {found}. Check the disk's space, mount and permissions"
        ) from error
    return raw, handle


def copy_in_memory(of: sqlite3.Connection) -> sqlite3.Connection:
    """Return a writing connection to a private database in memory with everything that another one holds."""
    raw = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _set_up(raw)
    of.backup(raw)
    return raw


def _set_up(raw: sqlite3.Connection) -> None:
    for pragma in _WRITER_PRAGMAS:
        raw.execute(f"PRAGMA {pragma}")


def open_reader(path: Path, timeout_s: float = BUSY_TIMEOUT_MS / 1000) -> sqlite3.Connection:
    """Open a file for reading only. Raises sqlite3.Error."""
    raw = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",  # as a URI, so `?`, `#` and `%` in the name are escaped
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=timeout_s,
    )
    try:
        for pragma in _READER_PRAGMAS:
            raw.execute(f"PRAGMA {pragma}")
    except BaseException:
        raw.close()
        raise
    return raw


def limit(raw: sqlite3.Connection, budget_s: float) -> None:
    """Interrupt a connection's queries after `budget_s` seconds."""
    deadline = time.monotonic() + budget_s
    raw.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_A_LOOK)


def version(raw: sqlite3.Connection) -> int:
    """Return the schema version of an open file; 0 for a new one. Raises sqlite3.Error."""
    return int(raw.execute("PRAGMA user_version").fetchone()[0])


def migrate(database: Database[H], raw: sqlite3.Connection, handle: H) -> None:
    """Migrate an open file to this program's version, each step in its own transaction. Raises what a step raises."""
    found = version(raw)
    for number, step in enumerate(database.migrations[found:], start=found + 1):
        raw.execute("BEGIN IMMEDIATE")
        try:
            step(handle)
            raw.execute(f"PRAGMA user_version = {number}")
            raw.execute("COMMIT")
        except BaseException:
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            raise


def _keep_before_migration(database: Database[H], raw: sqlite3.Connection, path: Path) -> None:
    """Copy a file of an older version, complete and on disk: the version that wrote it can go on from the copy."""
    found = version(raw)
    if not 0 < found < len(database.migrations):
        return
    kept = path.with_name(f"{path.name}.schema-{found}")
    partial = kept.with_name(f"{kept.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with contextlib.closing(sqlite3.connect(partial)) as copy:
            raw.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        files.sync(partial)
        partial.replace(kept)
        files.sync(kept.parent)
    except OSError as error:
        raise database.not_done(f"{kept} cannot be written before the migration: {error.strerror}") from error


def _refuse_newer(database: Database[H], raw: sqlite3.Connection) -> None:
    found, known = version(raw), len(database.migrations)
    if found > known:
        raise database.unusable(
            f"{database.name} has schema version {found}, this program knows up to {known}: "
            "run the newer Engram that wrote it, or restore an older backup"
        )
