"""The data files of a node's folder: opening them safely, copying them, and replacing them."""

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
"""The file whose exclusive lock the owner of the data folder holds."""
TRUTH = "truth.db"
NOTEBOOK = "notebook.db"
INDEX = "index"
STORES = (TRUTH, NOTEBOOK)
INCOMING = ".incoming"
REPAIRING = ".repairing"
"""Folders in which a restore or repair prepares its files; leftovers of a crash are useless."""
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
    """Open one consistent snapshot of a database, even while a node writes to it or on a read-only disk.

    Raises StoreDamaged, TruthUnavailable (it may be whole), for what the body reads too.
    """
    return copies.snapshot(_STORE, path, LOCK)


def problems_of(connection: sqlite3.Connection) -> list[str]:
    """Return what SQLite finds wrong with a database, at most 20 lines, without indexes that the next start drops."""
    return [each for each in copies.problems_of(connection) if not each.endswith(record_sql.RETIRED_INDEXES)]


def copy_database(source: Path, target: Path, on_progress: Progress = lambda done, total: None) -> None:
    """Copy a database that may be in use, consistently and to disk. Raises StoreDamaged, OSError."""
    copies.copy(_STORE, source, target, LOCK, on_progress)


def is_claimed(folder: Path) -> bool:
    """Return whether a process owns the folder now, without writing or creating a lock file. Raises OSError."""
    return copies.is_claimed(folder / LOCK)


def cannot_be_written(error: OSError) -> bool:
    """Return whether the disk caused the error: it is full or read-only."""
    return error.errno in _NOT_WRITABLE


def put_in_place(incoming: Path, data: Path, kept_as: str) -> Path:
    """Replace the stores of a node by those in folder `incoming`, which is on the same disk.

    The former stores go to the folder `{kept_as}-1`, `-2`, …, which is returned; their index is removed and the node
    rebuilds it. The caller has claimed the folder. Raises OSError.
    """
    return restoring.put_in_place(incoming, data, kept_as, STORES, _INDEX_FOLDERS)


def finish(data: Path) -> None:
    """Finish a `put_in_place` or a reindexing that a crash interrupted, if there is one.

    The caller has claimed the folder. Raises OSError.
    """
    _settle_index(data)
    for unfinished in (INCOMING, REPAIRING):
        shutil.rmtree(data / unfinished, ignore_errors=True)
    restoring.finish(data, STORES, _INDEX_FOLDERS)


def _settle_index(data: Path) -> None:
    """Restore the old index when a reindexing stopped in the middle of its swap, and remove its leftovers."""
    index, building, old = (data / name for name in _INDEX_FOLDERS)
    if old.exists() and not index.exists():
        old.rename(index)
    for left in (building, old):
        shutil.rmtree(left, ignore_errors=True)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
