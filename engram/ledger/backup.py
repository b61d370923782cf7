"""Backs up, restores and checks a ledger file."""

import hashlib
from pathlib import Path
from typing import Final

import msgspec

from engram import files
from engram.durable import copies, restoring
from engram.durable.driver import VERSION
from engram.ledger.connection import LEDGER, LEDGER_FILE
from engram.ledger.errors import LedgerUnavailable, LedgerUnusable
from engram.ledger.migrations import MIGRATIONS

LOCK_FILE: Final = "engram.lock"
"""Locked exclusively by the process that owns the data folder."""
_RESTORING_BEFORE: Final = LEDGER_FILE + ".restoring"
"""Version 0.1's name for a restored ledger whose replacement is committed."""


class Report(msgspec.Struct, frozen=True):
    """The result of a check. `problems` is empty when the ledger is sound."""

    path: str
    schema_version: int
    ledger_id: str
    bytes: int
    rows: dict[str, int]
    problems: list[str]
    sqlite_version: str


def backup(source: Path, target: Path) -> int:
    """Copy the ledger at `source` (which may be in use) to `target` as one consistent file; return its size in bytes.

    The copy is complete and on disk before `target` appears under its name. Raises LedgerUnavailable when the
    target exists or cannot be written, LedgerUnusable when the source cannot be read.
    """
    if target.exists():
        raise LedgerUnavailable(f"{target} exists already; choose another name")
    if not target.parent.is_dir():
        raise LedgerUnavailable(f"no backup was made at {target}: there is no folder {target.parent}")
    partial = target.with_name(target.name + ".partial")
    try:
        partial.unlink(missing_ok=True)
        copies.copy(LEDGER, source, partial, LOCK_FILE)
        partial.rename(target)
        files.sync(target.parent)
    except (OSError, LedgerUnusable, LedgerUnavailable) as error:
        partial.unlink(missing_ok=True)
        raise LedgerUnavailable(f"no backup was made at {target}: {error}") from error
    return target.stat().st_size


def restore(source: Path, folder: Path) -> Path:
    """Put the backup `source` in place of the ledger in `folder`, which no process may hold (take the folder's lock).

    The old ledger is kept in a folder next to it, even if damaged; returns that folder (or the ledger's path if there
    was none). Raises LedgerUnusable when the backup is damaged, LedgerUnavailable when the disk is full or read-only.
    A crash at any moment leaves either the old ledger or the restored one. What root restores belongs to the folder's
    owner.
    """
    report = check(source)
    if report.problems:
        raise LedgerUnusable(f"{source} is damaged: {report.problems[0]}; nothing was changed")
    incoming = folder / (LEDGER_FILE + ".incoming")
    try:
        if incoming.is_file():  # version 0.1, when it was killed
            incoming.unlink()
        incoming.mkdir(mode=0o700, exist_ok=True)
        (incoming / LEDGER_FILE).unlink(missing_ok=True)
        backup(source, incoming / LEDGER_FILE)
        files.give_to_owner_of(folder, incoming / LEDGER_FILE)
        kept = restoring.put_in_place(incoming, folder, f"{LEDGER_FILE}.before-restore", [LEDGER_FILE]) / LEDGER_FILE
    except OSError as error:
        raise LedgerUnavailable(f"{source} was not restored: {error}") from error
    if not kept.exists():
        return folder / LEDGER_FILE
    files.give_to_owner_of(folder, kept.parent)
    return kept


def finish_restore(folder: Path) -> None:
    """Complete a restore that a crash interrupted after its commit, if any. Safe to repeat."""
    restoring.finish(folder, [LEDGER_FILE])
    if (folder / _RESTORING_BEFORE).exists():
        for suffix in ("-wal", "-shm"):
            (folder / (LEDGER_FILE + suffix)).unlink(missing_ok=True)
        files.sync(folder)
        (folder / _RESTORING_BEFORE).replace(folder / LEDGER_FILE)
        files.sync(folder)


def check(path: Path) -> Report:
    """Read the whole file and report its problems; it may be in use.

    Raises LedgerUnusable when it is not a ledger, LedgerUnavailable when it cannot be read now.
    """
    with copies.snapshot(LEDGER, path, LOCK_FILE) as connection:
        problems = copies.problems_of(connection)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        names = [row[0] for row in connection.execute(tables)]
        rows = {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}
        ledger_id = ""
        if "meta" in names:
            found = connection.execute("SELECT value FROM meta WHERE key = 'ledger_id'").fetchone()
            ledger_id = found[0] if found else ""
        else:
            problems.append("there is no meta table: this is not an Engram ledger")
    if version > len(MIGRATIONS):
        problems.append(f"schema version {version} is newer than this program's {len(MIGRATIONS)}")
    return Report(str(path), version, ledger_id, path.stat().st_size, rows, problems, VERSION)


def content_of(path: Path) -> str:
    """Return a SHA-256 of all rows of a ledger, the same for two ledgers of one schema that hold the same.

    Raises what `check` raises.
    """
    digest = hashlib.sha256()
    with copies.snapshot(LEDGER, path, LOCK_FILE) as connection:
        tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        for (table,) in connection.execute(tables).fetchall():
            columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
            digest.update(repr((table, columns)).encode())
            order = ", ".join(str(number + 1) for number in range(len(columns)))
            for row in connection.execute(f'SELECT * FROM "{table}" ORDER BY {order}'):
                digest.update(repr(row).encode())
    return digest.hexdigest()
