"""One query on a ledger that a process may have open: for commands that look and change nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from config.model import LedgerSettings
from engram.ledger.connection import LEDGER_FILE, reading_engine
from engram.ledger.errors import LedgerUnusable
from engram.ledger.identity import refuse_moved
from engram.ledger.opening import place_of, postgres

T = TypeVar("T")

READ_S: Final = 30.0


def read_once(settings: LedgerSettings, folder: Path, query: Callable[[Connection], T]) -> T:
    """Return the query's answer from the ledger that the settings name; blocks, and migrates nothing.

    Raises LedgerUnusable where there is none, where it was moved elsewhere, or where this program cannot read it, and
    LedgerUnavailable where its server does not answer.
    """
    place = place_of(settings, folder)

    def read(connection: Connection) -> T:
        refuse_moved(connection, place)
        return query(connection)

    try:
        return _from_server(settings.url, read) if settings.url else _from_file(folder / LEDGER_FILE, read)
    except SQLAlchemyError:
        raise LedgerUnusable(f"{place} is no ledger that this version can read") from None


def _from_file(path: Path, query: Callable[[Connection], T]) -> T:
    if not path.is_file():
        raise LedgerUnusable(f"there is no ledger at {path}")
    engine = reading_engine(path)
    try:
        with engine.connect() as connection:
            return query(connection)
    finally:
        engine.dispose()


def _from_server(url: str, query: Callable[[Connection], T]) -> T:
    readers = postgres("server").PostgresServer(url).open_readers(1)
    try:
        found: T = readers.read_now(query, READ_S)
        return found
    finally:
        readers.close()
