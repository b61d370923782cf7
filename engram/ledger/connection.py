"""Opening the SQLite file the one right way: WAL, synchronous=FULL, one writer, readers that only read."""

from pathlib import Path

import sqlalchemy
import sqlalchemy.engine
import sqlalchemy.exc
from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, StaticPool

from engram.durable.driver import sqlite3
from engram.ledger import migrations
from engram.ledger.errors import LedgerUnavailable, LedgerUnusable

LEDGER_FILE = "ledger.sqlite3"
BUSY_TIMEOUT_MS = 5_000


def writing_engine(path: Path | None) -> Engine:
    """The engine of the one writer. `path` None is a private in-memory ledger (tests)."""
    engine = _engine(path, pool=StaticPool)

    @event.listens_for(engine, "connect")
    def _configure(raw: sqlalchemy.engine.interfaces.DBAPIConnection, _: ConnectionPoolEntry) -> None:
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "wal_autocheckpoint=1000",
            "temp_store=MEMORY",
        ):
            _pragma(raw, pragma)

    return engine


def reading_engine(path: Path) -> Engine:
    """An engine whose connections cannot write and never checkpoint (SQLite's WAL-reset bug needs two that do)."""
    engine = _engine(path, pool=NullPool)

    @event.listens_for(engine, "connect")
    def _configure(raw: sqlalchemy.engine.interfaces.DBAPIConnection, _: ConnectionPoolEntry) -> None:
        for pragma in ("query_only=ON", "wal_autocheckpoint=0", "temp_store=MEMORY"):
            _pragma(raw, pragma)

    return engine


def reading_uri(path: Path) -> str:
    """The SQLite URI that opens a file for reading only, whatever signs its name has (`?`, `#`, `%`)."""
    return f"{path.absolute().as_uri()}?mode=ro"


def open_writer(path: Path | None) -> Connection:
    """Open, check and migrate the ledger; returns the writing connection.

    Raises LedgerUnusable when the file is damaged, no ledger, or newer than this program, and LedgerUnavailable
    when the disk refuses (full, read-only, no permission).
    """
    place = str(path) if path else "memory"
    try:
        connection = writing_engine(path).connect()
    except sqlalchemy.exc.DatabaseError as error:
        raise _open_error(place, error) from error
    try:
        verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if verdict != "ok":
            raise LedgerUnusable(f"{place} is damaged ({verdict}); restore a backup: engram ledger restore FILE")
        migrations.migrate(connection)
    except sqlalchemy.exc.DatabaseError as error:
        connection.close()
        raise _open_error(place, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _engine(path: Path | None, pool: type[StaticPool] | type[NullPool]) -> Engine:
    url = sqlalchemy.URL.create("sqlite", database=str(path) if path else None)
    return sqlalchemy.create_engine(
        url,
        module=sqlite3,
        poolclass=pool,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        hide_parameters=True,  # payments and keys are among them, and errors are logged
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
    )


def _pragma(raw: sqlalchemy.engine.interfaces.DBAPIConnection, pragma: str) -> None:
    cursor = raw.cursor()
    cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _open_error(place: str, error: sqlalchemy.exc.DatabaseError) -> LedgerUnusable | LedgerUnavailable:
    text = str(error.orig)
    if "not a database" in text or "malformed" in text:
        return LedgerUnusable(f"{place} is not a usable ledger: {text}")
    return LedgerUnavailable(f"{place} cannot be opened: {text}. Check the disk's space, mount and permissions")
