"""The files of a node's data folder that hold what it was given, and how they are copied and put in place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from engram import files
from engram.durable.driver import sqlite3
from engram.memory.errors import MemoryAreaError, TruthUnavailable

LOCK = "lock"
"""Held exclusively by whoever has the data folder."""
TRUTH = "truth.db"
NOTEBOOK = "notebook.db"
INDEX = "index"
STORES = (TRUTH, NOTEBOOK)
RESTORING = "restoring"
"""A folder with stores that are decided on: whoever claims the data folder next puts them in place."""
INCOMING = ".incoming"
REPAIRING = ".repairing"
"""Folders in which a restore and a repair get ready; what a crash leaves of them is of no use."""
_ASIDE = "aside"
_PAGES = 4_096
_NOT_NOW = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN)
_NO_ROOM_BESIDE = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
_NOT_WRITABLE = (errno.EROFS, errno.ENOSPC, errno.EDQUOT)
_INDEX_FOLDERS = (INDEX, f"{INDEX}.building", f"{INDEX}.old")

Progress = Callable[[int, int], None]


class StoreDamaged(MemoryAreaError):
    """A database cannot be read; the text names it and the command that helps."""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """One consistent view of a database, also while a node writes to it.

    On a disk that cannot be written, where SQLite finds no room for what it keeps beside a database, a copy of it in
    the temporary folder is read.

    Raises StoreDamaged, TruthUnavailable (it may be whole), for what the body reads too.
    """
    if not path.is_file() or path.stat().st_size == 0:
        raise StoreDamaged(f"{path} is missing or empty: restore it with `engram miner restore BACKUP {path.parent}`")
    with contextlib.ExitStack() as opened:
        try:
            try:
                connection = _open(path)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _NO_ROOM_BESIDE:
                    raise
                connection = _open(_copied(path, opened))
            opened.callback(connection.close)
            yield connection
        except (sqlite3.DatabaseError, UnicodeDecodeError, json.JSONDecodeError) as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _NOT_NOW:
                raise TruthUnavailable(f"{path} cannot be read now: {error}") from error
            raise StoreDamaged(
                f"{path} cannot be read: {error}. With the node stopped, `engram miner repair {path.parent}` saves what"
                f" is whole; `engram miner restore BACKUP {path.parent} --force` puts a backup in its place"
            ) from error


def is_claimed(folder: Path) -> bool:
    """Whether a process has the folder now; asks without writing, and makes no lock. Raises OSError."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def cannot_be_written(error: OSError) -> bool:
    """Whether that is the disk's fault: full, or read-only."""
    return error.errno in _NOT_WRITABLE


def problems_of(connection: sqlite3.Connection) -> list[str]:
    """Returns what SQLite finds wrong with a database, at most 20 lines."""
    return [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]


def copy_database(source: Path, target: Path, on_progress: Progress = lambda done, total: None) -> None:
    """Writes one consistent copy of a database that may be in use, to disk. Raises StoreDamaged, OSError."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with reading(source) as reader, contextlib.closing(sqlite3.connect(target)) as copy:
        # The reader's open transaction keeps the copy to one moment, whatever is written meanwhile.
        reader.backup(copy, pages=_PAGES, progress=lambda _, left, total: on_progress(total - left, total))
        copy.execute("PRAGMA journal_mode = DELETE")
    files.sync(target)


def put_in_place(incoming: Path, data: Path, kept_as: str) -> Path:
    """Puts the stores of folder `incoming` (on the data folder's disk) in the place of those that are there.

    The former ones go to `{kept_as}-1`, `-2`, …, which is returned. From the first rename on, this goes forward only:
    after a crash `finish` does the rest. The caller has claimed the folder. Raises OSError.
    """
    number = 1
    while (kept := data / f"{kept_as}-{number}").exists():
        number += 1
    (incoming / _ASIDE).write_text(kept.name, encoding="ascii")
    for path in (*incoming.iterdir(), incoming):
        files.sync(path)
    incoming.rename(data / RESTORING)
    files.sync(data)
    finish(data)
    return kept


def finish(data: Path) -> None:
    """Finishes what a crash left of `put_in_place` and of a reindexing; else nothing.

    The caller has claimed the folder. Raises OSError.
    """
    _settle_index(data)
    for unfinished in (INCOMING, REPAIRING):
        shutil.rmtree(data / unfinished, ignore_errors=True)
    restoring = data / RESTORING
    if not restoring.exists():
        return
    aside = restoring / _ASIDE
    if aside.exists():
        kept = data / Path(aside.read_text(encoding="ascii")).name
        kept.mkdir(mode=0o700, exist_ok=True)
        for name in STORES:
            if (restoring / name).exists():
                for former in (f"{name}-wal", f"{name}-shm", name):
                    if (data / former).exists():
                        (data / former).rename(kept / former)
                files.sync(kept)
                (restoring / name).rename(data / name)
                files.sync(data)
        for folder in _INDEX_FOLDERS:  # of other records; the node builds it anew
            shutil.rmtree(data / folder, ignore_errors=True)
        aside.unlink()
    restoring.rmdir()
    files.sync(data)


def _settle_index(data: Path) -> None:
    """Puts the old index back where a reindexing was stopped amid its swap; what else it left only fills the disk."""
    index, building, old = (data / name for name in _INDEX_FOLDERS)
    if old.exists() and not index.exists():
        old.rename(index)
    for left in (building, old):
        shutil.rmtree(left, ignore_errors=True)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _copied(path: Path, until: contextlib.ExitStack) -> Path:
    """A copy of a database that nobody writes to, kept as long as `until` is open. Raises TruthUnavailable."""
    if is_claimed(path.parent):
        raise TruthUnavailable(f"{path} cannot be read now: its disk cannot be written, and a node has it; stop it")
    try:
        folder = Path(until.enter_context(tempfile.TemporaryDirectory(prefix="engram-")))
        for name in (path.name, f"{path.name}-wal"):
            if (path.parent / name).exists():
                shutil.copyfile(path.parent / name, folder / name)
    except OSError as error:
        raise TruthUnavailable(
            f"{path} can neither be read where it is nor be copied to {tempfile.gettempdir()} ({error.strerror});"
            " TMPDIR names another folder for the copy"
        ) from error
    return folder / path.name


def digest_of(path: Path) -> str:
    """Returns the SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
