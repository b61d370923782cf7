"""Reads indexed rows on the event loop itself: no thread, no ORM, a few microseconds.

A hop to a reader thread costs ten times as much as such a read. Reads are bounded: a statement is built at import from
a table and the columns of one of its indexes, returns at most `MOST_ROWS` rows, and is interrupted after `MOST_STEPS`
steps of SQLite's virtual machine (about a millisecond). The connection cannot write and never waits for a lock. When
the lane cannot answer, it raises `LaneClosed` and the caller reads in a thread. SQLite only.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, final

import msgspec
import sqlalchemy
from sqlalchemy import Column, Label, LargeBinary, UniqueConstraint, bindparam, case, func, select
from sqlalchemy.dialects import sqlite

from engram import wire
from engram.durable.connection import open_reader
from engram.durable.driver import code_of, sqlite3

MOST_ROWS: Final = 256
MOST_STEPS: Final = 20_000
_STEPS_A_LOOK: Final = 1_000
_PASSING: Final = frozenset({sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
"""Errors after which the connection is as good as before: a read that took too long, a lock that is not waited for."""

R = TypeVar("R")
S = TypeVar("S", bound=msgspec.Struct)


class LaneClosed(Exception):
    """The lane cannot answer now: read in a thread instead."""


class Lookup(msgspec.Struct, Generic[R], frozen=True):
    """A prepared read: rows of one table by the columns of one of its indexes.

    SQLite returns each row as one JSON array, which is decoded at once as the row's Struct. Its driver would make one
    Python object after the other and, for each execution, a description that nobody reads.
    """

    sql: str
    decode: Callable[[str], R]


def lookup(
    row: type[S], columns: Sequence[Column[object] | Label[Any]], by: Sequence[Column[object]], *, limit: int = 1
) -> Lookup[S]:
    """Prepare a read of `columns` where the columns `by` (those of one index) have given values.

    `row` is an `array_like` Struct whose fields are the columns: numbers keep all their digits, blobs come in hex. A
    column may be a labeled subquery of one row.

    Raises ValueError for a row with other fields, for columns that are not an index, and for more than MOST_ROWS rows.
    """
    names = tuple(column.name for column in columns)
    if row.__struct_fields__ != names:
        raise ValueError(f"{row.__name__} has the fields {row.__struct_fields__}, the columns are {names}")
    table = by[0].table
    assert isinstance(table, sqlalchemy.Table)
    wanted = [column.name for column in by]
    indexes = [[column.name for column in index.columns] for index in table.indexes]
    indexes += [[column.name for column in table.primary_key.columns]]
    indexes += [
        [column.name for column in each.columns] for each in table.constraints if isinstance(each, UniqueConstraint)
    ]
    if not any(index[: len(wanted)] == wanted for index in indexes):
        raise ValueError(f"{table.name}: {', '.join(wanted)} begin none of its indexes")
    if not 0 < limit <= MOST_ROWS:
        raise ValueError(f"{limit} rows; at most {MOST_ROWS} are read on the loop")
    packed = [
        case((each.is_not(None), func.hex(each))) if isinstance(each.type, LargeBinary) else each for each in columns
    ]
    statement = select(func.json_array(*packed)).where(*(column == bindparam(column.name) for column in by))
    sql = f"{statement.compile(dialect=sqlite.dialect(paramstyle='qmark'))} LIMIT {limit}"
    return Lookup(sql, wire.decoder(row).decode)


@final
class Lane:
    """One read-only connection, used by the event loop's thread only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._steps = 0

    def rows(self, lookup: Lookup[R], *values: object) -> list[R]:
        """Return the rows of a lookup. Raises LaneClosed."""
        try:
            connection = self._connection or self._open()
            self._steps = 0
            found = connection.execute(lookup.sql, values).fetchmany(MOST_ROWS)
        except sqlite3.Error as error:
            if code_of(error) not in _PASSING:
                self.close()
            raise LaneClosed(str(error)) from error
        return [lookup.decode(packed) for (packed,) in found]

    def close(self) -> None:
        """Close the connection; the next read opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        connection = open_reader(self._path, timeout_s=0)
        connection.set_progress_handler(self._too_long, _STEPS_A_LOOK)
        self._connection = connection
        return connection

    def _too_long(self) -> bool:
        self._steps += _STEPS_A_LOOK
        return self._steps > MOST_STEPS
