"""Reading a ledger directly, whether or not a process has it open: the one in use, or a file."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from config.model import Settings
from engram.cli.failures import CommandFailed, Exit
from engram.ledger import LedgerError
from engram.ledger.connection import reading_engine
from engram.ledger.reading import read_once

T = TypeVar("T")


def read_in_use(settings: Settings, query: Callable[[Connection], T], exit_code: Exit = Exit.FAILED) -> T:
    """Return the query's answer from the ledger that a process with these settings has: the file of data_dir, or the
    server of ledger.url. Raises CommandFailed where there is none, or none that can be read."""
    try:
        return read_once(settings.ledger, Path(settings.data_dir).resolve(), query)
    except LedgerError as error:
        hint = "" if "ledger.url" in str(error) or settings.ledger.url else "; set data_dir to its folder"
        raise CommandFailed(f"{error}{hint}", exit_code) from None


def read_if_there(settings: Settings, query: Callable[[Connection], T]) -> T | None:
    """Return what `read_in_use` does; None where that fails."""
    try:
        return read_in_use(settings, query)
    except CommandFailed:
        return None


def read_at_rest(path: Path, query: Callable[[Connection], T]) -> T | None:
    """Return the query's answer from the ledger file at `path`; None when it cannot be read, or there is none."""
    if not path.is_file():
        return None
    engine = reading_engine(path)
    try:
        with engine.connect() as connection:
            return query(connection)
    except SQLAlchemyError:
        return None
    finally:
        engine.dispose()
