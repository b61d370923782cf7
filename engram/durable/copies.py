"""Reads, copies and checks one consistent snapshot of a file, also while it is in use."""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from engram import files
from engram.durable.connection import open_reader
from engram.durable.database import Database
from engram.durable.driver import code_of, sqlite3

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the amount done and the total, in the unit that the function names."""

_PAGES: Final = 4_096
_NOT_NOW: Final = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN})
_NO_ROOM_BESIDE: Final = frozenset(
    {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
)


@contextlib.contextmanager
def snapshot(database: Database[Any], path: Path, lock: str) -> Iterator[sqlite3.Connection]:
    """Open one consistent snapshot of a file, also while its owner writes to it.

    On a read-only disk, where SQLite cannot create its -wal and -shm files, a copy in the temporary folder is read.
    `lock` is the name of the file in its folder that an owner locks.

    Raises the database's `unusable`, and `not_done` (the file may be sound); also for reads in the body.
    """
    if not path.is_file() or path.stat().st_size == 0:
        raise database.unusable(f"{path} {'is empty' if path.is_file() else 'does not exist'}; {database.remedy(path)}")
    with contextlib.ExitStack() as opened:
        try:
            try:
                raw = _opened(path)
            except sqlite3.OperationalError as error:
                if code_of(error) not in _NO_ROOM_BESIDE:
                    raise
                raw = _opened(_copied(database, path, lock, opened))
            opened.callback(raw.close)
            yield raw
        except (sqlite3.DatabaseError, UnicodeDecodeError, json.JSONDecodeError) as error:
            if code_of(error) in _NOT_NOW:
                raise database.not_done(f"{path} cannot be read now: {error}") from error
            raise database.unusable(f"{path} cannot be read: {error}. {database.remedy(path)}") from error


def problems_of(raw: sqlite3.Connection) -> list[str]:
    """Return the problems that SQLite finds in a file, at most 20 lines; reads the whole file."""
    return [str(row[0]) for row in raw.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]


def copy(
    database: Database[Any], source: Path, target: Path, lock: str, on_progress: Progress = lambda done, total: None
) -> None:
    """Write one consistent copy of a file, which may be in use; `on_progress` counts pages.

    Raises the database's `unusable` and `not_done`, OSError (`target` exists, or its disk is full).
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with snapshot(database, source, lock) as reader, contextlib.closing(sqlite3.connect(target)) as written:
        # The reader's open transaction pins the copy to one snapshot while others write.
        reader.backup(written, pages=_PAGES, progress=lambda _, left, total: on_progress(total - left, total))
        written.execute("PRAGMA journal_mode = DELETE")
    files.sync(target)


def is_claimed(lock: Path) -> bool:
    """Return whether a process holds the lock; neither writes nor creates the file. Raises OSError."""
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _opened(path: Path) -> sqlite3.Connection:
    raw = open_reader(path)
    try:
        raw.execute("BEGIN")
        raw.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        raw.close()
        raise
    return raw


def _copied(database: Database[Any], path: Path, lock: str, until: contextlib.ExitStack) -> Path:
    """Copy a file that no process writes to; the copy exists while `until` is open."""
    if is_claimed(path.parent / lock):
        raise database.not_done(f"{path} cannot be read now: its disk cannot be written, and a process has it; stop it")
    try:
        folder = Path(until.enter_context(tempfile.TemporaryDirectory(prefix="engram-")))
        for name in (path.name, f"{path.name}-wal"):
            if (path.parent / name).exists():
                shutil.copyfile(path.parent / name, folder / name)
    except OSError as error:
        raise database.not_done(
            f"{path} can neither be read where it is nor be copied to {tempfile.gettempdir()} ({error.strerror});"
            " TMPDIR names another folder for the copy"
        ) from error
    return folder / path.name
