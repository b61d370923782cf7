"""The ledger's file: its description for engram.durable, and SQLAlchemy's view of its connections."""

import functools
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import sqlalchemy
from sqlalchemy import Connection, Engine
from sqlalchemy.pool import NullPool, Pool, StaticPool

from engram.durable import Database, connection
from engram.durable.driver import sqlite3
from engram.ledger.errors import CommitUnknown, LedgerUnavailable, LedgerUnusable
from engram.ledger.migrations import MIGRATIONS

LEDGER_FILE: Final = "ledger.sqlite3"


def wrapped(raw: sqlite3.Connection) -> Connection:
    """Return an SQLAlchemy connection over a SQLite connection, which its opener must still close."""
    return _engine(lambda: raw, StaticPool).connect()


LEDGER: Final = Database[Connection](
    name="the ledger",
    migrations=MIGRATIONS,
    wrap=wrapped,
    not_done=LedgerUnavailable,
    unknown=CommitUnknown,
    unusable=LedgerUnusable,
    remedy=lambda path: "restore a backup: engram ledger restore FILE",
    cleared_every_s=60.0,
    kept_before_migration=True,
)


def open_writer(path: Path | None) -> Connection:
    """Open, check and migrate the ledger; return the writing connection. `path` None is a private one in memory.

    Raises LedgerUnusable when the file is damaged, not a ledger, or newer than this program, and LedgerUnavailable
    when the disk refuses (full, read-only, no permission).
    """
    if path:
        return connection.open_writer(LEDGER, path)[1]
    raw = connection.copy_in_memory(_migrated()[0])
    raw.execute("UPDATE meta SET value = ? WHERE key = 'ledger_id'", (secrets.token_hex(4),))
    return wrapped(raw)


@functools.cache
def _migrated() -> tuple[sqlite3.Connection, Connection]:
    """Open a new ledger in memory to copy: all migrations take twenty times as long as a copy of what they make."""
    return connection.open_writer(LEDGER, None)


def reading_engine(path: Path) -> Engine:
    """Return an engine whose connections can neither write nor checkpoint."""
    return _engine(lambda: connection.open_reader(path), NullPool)


def _engine(creator: Callable[[], sqlite3.Connection], pool: type[Pool]) -> Engine:
    return sqlalchemy.create_engine(
        "sqlite://",
        module=sqlite3,
        creator=creator,
        poolclass=pool,
        pool_reset_on_return=None,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        hide_parameters=True,  # parameters contain payments and keys, and errors are logged
    )
