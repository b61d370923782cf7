"""Reading a ledger file directly, whether or not a process has it open."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from engram.ledger.connection import reading_engine

T = TypeVar("T")


def read_at_rest(path: Path, query: Callable[[Connection], T]) -> T | None:
    """Return the query's answer from the ledger at `path`; None when it cannot be read, or there is none."""
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
