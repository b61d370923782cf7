"""Backing up, restoring and checking a ledger file."""

import contextlib
import os
import shutil
from pathlib import Path

import msgspec

from engram import files
from engram.durable.driver import sqlite3
from engram.ledger.connection import LEDGER_FILE, reading_uri
from engram.ledger.errors import LedgerUnavailable, LedgerUnusable
from engram.ledger.migrations import MIGRATIONS

RESTORING = ".restoring"
"""Suffix of a restored ledger that is decided on: from here a restore goes forward only."""


class Report(msgspec.Struct, frozen=True):
    """What a check found. `problems` is empty when the ledger is sound."""

    path: str
    schema_version: int
    ledger_id: str
    bytes: int
    rows: dict[str, int]
    problems: list[str]
    sqlite_version: str


def backup(source: Path, target: Path) -> int:
    """Copy the ledger at `source` (which may be in use) to `target` as one consistent file; returns its bytes.

    The copy is complete and on disk before `target` appears under its name. Raises LedgerUnavailable when the
    target exists or cannot be written.
    """
    if target.exists():
        raise LedgerUnavailable(f"{target} exists already; choose another name")
    if not target.parent.is_dir():
        raise LedgerUnavailable(f"no backup was made at {target}: there is no folder {target.parent}")
    partial = target.with_name(target.name + ".partial")
    try:
        partial.unlink(missing_ok=True)
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with (
            contextlib.closing(sqlite3.connect(reading_uri(source), uri=True)) as reader,
            contextlib.closing(sqlite3.connect(partial)) as copy,
        ):
            reader.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        files.sync(partial)
        partial.rename(target)
        files.sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        partial.unlink(missing_ok=True)
        raise LedgerUnavailable(f"no backup was made at {target}: {error}") from error
    return target.stat().st_size


def restore(source: Path, folder: Path) -> Path:
    """Put the backup `source` in place of the ledger in `folder`, which no process may hold (take the folder's lock).

    The former ledger is kept beside it, a damaged one as it is; returns where (or the ledger's path when there was
    none). Raises LedgerUnusable when the backup is damaged, LedgerUnavailable when the disk does not take it.

    A crash at any moment leaves the former ledger whole, or the name that `finish_restore` goes on from: a log of the
    former ledger never meets the new file.
    """
    report = check(source)
    if report.problems:
        raise LedgerUnusable(f"{source} is damaged: {report.problems[0]}; nothing was changed")
    ledger = folder / LEDGER_FILE
    kept = ledger
    incoming = folder / (LEDGER_FILE + ".incoming")
    incoming.unlink(missing_ok=True)
    backup(source, incoming)
    if ledger.exists():
        number = 1
        while (kept := folder / f"{LEDGER_FILE}.before-restore-{number}").exists():
            number += 1
        try:
            backup(ledger, kept)
        except LedgerUnavailable:  # damaged, which is what restoring is for: keep it as it is
            _copy(ledger, kept)
            with contextlib.suppress(FileNotFoundError):
                _copy(_beside(ledger, "-wal"), _beside(kept, "-wal"))
        files.sync(folder)
    incoming.rename(folder / (LEDGER_FILE + RESTORING))
    files.sync(folder)
    finish_restore(folder)
    return kept


def finish_restore(folder: Path) -> None:
    """Put a restored ledger in its place if a restore got that far; nothing otherwise. Again after a crash."""
    restoring, ledger = folder / (LEDGER_FILE + RESTORING), folder / LEDGER_FILE
    if not restoring.exists():
        return
    for suffix in ("-wal", "-shm"):
        _beside(ledger, suffix).unlink(missing_ok=True)
    files.sync(folder)
    restoring.replace(ledger)
    files.sync(folder)


def check(path: Path) -> Report:
    """Read the whole file and tell what is wrong with it. Raises LedgerUnusable when it is no ledger at all."""
    if not path.is_file():
        raise LedgerUnusable(f"{path} does not exist")
    problems: list[str] = []
    try:
        with contextlib.closing(sqlite3.connect(reading_uri(path), uri=True)) as connection:
            problems += [row[0] for row in connection.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            names = [
                row[0]
                for row in connection.execute(
                    "SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
                )
            ]
            rows = {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}
            ledger_id = ""
            if "meta" in names:
                found = connection.execute("SELECT value FROM meta WHERE key = 'ledger_id'").fetchone()
                ledger_id = found[0] if found else ""
            else:
                problems.append("there is no meta table: this is not an Engram ledger")
    except sqlite3.DatabaseError as error:
        raise LedgerUnusable(f"{path} is not a usable ledger: {error}") from error
    if version > len(MIGRATIONS):
        problems.append(f"schema version {version} is newer than this program's {len(MIGRATIONS)}")
    return Report(str(path), version, ledger_id, path.stat().st_size, rows, problems, sqlite3.sqlite_version)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _copy(source: Path, target: Path) -> None:
    try:
        with (
            source.open("rb") as read,
            open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy,
        ):
            shutil.copyfileobj(read, copy)
            copy.flush()
            os.fsync(copy.fileno())
    except FileNotFoundError:
        raise
    except OSError as error:
        target.unlink(missing_ok=True)
        raise LedgerUnavailable(f"no copy was made at {target}: {error}") from error
