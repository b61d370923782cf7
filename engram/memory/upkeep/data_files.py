"""The files of a node's data folder that hold what it was given, and how they are copied and put in place."""

from __future__ import annotations

import errno
import hashlib
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from engram.durable import Database, copies, restoring
from engram.durable.copies import Progress
from engram.durable.driver import sqlite3
from engram.durable.restoring import RESTORING
from engram.memory.errors import TruthUnavailable, TruthUnreadable, WriteUnknown
from engram.memory.store import record_sql

__all__ = ["RESTORING", "Progress"]

LOCK = "lock"
"""Held exclusively by whoever has the data folder."""
TRUTH = "truth.db"
NOTEBOOK = "notebook.db"
INDEX = "index"
STORES = (TRUTH, NOTEBOOK)
INCOMING = ".incoming"
REPAIRING = ".repairing"
"""Folders in which a restore and a repair get ready; what a crash leaves of them is of no use."""
_NOT_WRITABLE = (errno.EROFS, errno.ENOSPC, errno.EDQUOT)
_INDEX_FOLDERS = (INDEX, f"{INDEX}.building", f"{INDEX}.old")


class StoreDamaged(TruthUnreadable):
    """A database cannot be read; the text names it and the command that helps."""


_STORE: Final = Database[sqlite3.Connection](
    name="a database of the node",
    migrations=(),
    wrap=lambda connection: connection,
    not_done=TruthUnavailable,
    unknown=WriteUnknown,
    unusable=StoreDamaged,
    remedy=lambda path: (
        f"With the node stopped, `engram miner repair {path.parent}` saves what is whole;"
        f" `engram miner restore BACKUP {path.parent} --force` puts a backup in its place"
    ),
)


def reading(path: Path) -> AbstractContextManager[sqlite3.Connection]:
    """Open one consistent view of a database, also while a node writes to it, or on a disk that cannot be written.

    Raises StoreDamaged, TruthUnavailable (it may be whole), for what the body reads too.
    """
    return copies.snapshot(_STORE, path, LOCK)


def problems_of(connection: sqlite3.Connection) -> list[str]:
    """Return what SQLite finds wrong with a database, at most 20 lines; not of indexes that the next start drops."""
    return [each for each in copies.problems_of(connection) if not each.endswith(record_sql.RETIRED_INDEXES)]


def copy_database(source: Path, target: Path, on_progress: Progress = lambda done, total: None) -> None:
    """Write one consistent copy of a database that may be in use, to disk. Raises StoreDamaged, OSError."""
    copies.copy(_STORE, source, target, LOCK, on_progress)


def is_claimed(folder: Path) -> bool:
    """Whether a process has the folder now; asks without writing, and makes no lock. Raises OSError."""
    return copies.is_claimed(folder / LOCK)


def cannot_be_written(error: OSError) -> bool:
    """Whether that is the disk's fault: full, or read-only."""
    return error.errno in _NOT_WRITABLE


def put_in_place(incoming: Path, data: Path, kept_as: str) -> Path:
    """Put the stores of folder `incoming` (on the data folder's disk) in the place of those that are there.

    The former ones go to `{kept_as}-1`, `-2`, …, which is returned; their index is removed, and the node builds it
    again. The caller has claimed the folder. Raises OSError.
    """
    return restoring.put_in_place(incoming, data, kept_as, STORES, _INDEX_FOLDERS)


def finish(data: Path) -> None:
    """Finishes what a crash left of `put_in_place` and of a reindexing; else nothing.

    The caller has claimed the folder. Raises OSError.
    """
    _settle_index(data)
    for unfinished in (INCOMING, REPAIRING):
        shutil.rmtree(data / unfinished, ignore_errors=True)
    restoring.finish(data, STORES, _INDEX_FOLDERS)


def _settle_index(data: Path) -> None:
    """Puts the old index back where a reindexing was stopped amid its swap; what else it left only fills the disk."""
    index, building, old = (data / name for name in _INDEX_FOLDERS)
    if old.exists() and not index.exists():
        old.rename(index)
    for left in (building, old):
        shutil.rmtree(left, ignore_errors=True)


def digest_of(path: Path) -> str:
    """Returns the SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
