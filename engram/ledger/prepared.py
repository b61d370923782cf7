"""Statements of hot transactions, compiled once at import and run on the driver's own connection.

Running a statement through SQLAlchemy costs 60 to 100 microseconds, of which SQLite takes 5 to 20. SQLAlchemy still
generates the text, from the one description of the tables, but does not execute it. Values are passed and returned as
SQLite stores them (the ledger's columns are integers, reals, text and bytes). SQLite only.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, final

import sqlalchemy.exc
from sqlalchemy import Connection, Delete, Insert, Select, Update
from sqlalchemy.dialects import sqlite

from engram.durable.driver import sqlite3

Row: TypeAlias = dict[str, object]
Statement: TypeAlias = Select[*tuple[Any, ...]] | Insert | Update | Delete

_DIALECT: Final = sqlite.dialect(paramstyle="named")


def driver(connection: Connection) -> sqlite3.Connection:
    """Return the SQLite connection under a ledger's connection."""
    raw: object = connection.connection.dbapi_connection
    assert isinstance(raw, sqlite3.Connection), "the ledger is SQLite"
    return raw


@final
class Prepared:
    """One statement; its parameters are the names of its `bindparam`s, an insert's those of its columns."""

    __slots__ = ("_columns", "_sql")

    def __init__(self, statement: Statement, keys: Sequence[str] | None = None) -> None:
        """Compile a statement; `keys` are the columns that an insert fills, None for all.

        Raises ValueError for a literal value in the statement: give it a name with `bindparam`.
        """
        compiled = statement.compile(dialect=_DIALECT, column_keys=None if keys is None else list(keys))
        fixed = sorted(name for name, bind in compiled.binds.items() if bind.value is not None and not bind.required)
        if fixed:
            raise ValueError(f"{', '.join(fixed)}: values stand in a prepared statement as literals or as parameters")
        self._sql: Final = str(compiled)
        self._columns: Final = tuple(statement.selected_columns.keys()) if isinstance(statement, Select) else ()

    @property
    def sql(self) -> str:
        """The statement's text."""
        return self._sql

    def first(self, connection: Connection, parameters: Mapping[str, object]) -> Row | None:
        """Return the first row by column, None without one. Raises sqlalchemy.exc.DBAPIError."""
        values = self.values(connection, parameters)
        return None if values is None else dict(zip(self._columns, values, strict=True))

    def values(self, connection: Connection, parameters: Mapping[str, object]) -> tuple[Any, ...] | None:
        """Return the first row's values in their order, None without a row. Raises sqlalchemy.exc.DBAPIError."""
        found: tuple[Any, ...] | None = self._run(connection, parameters).fetchone()
        return found

    def rows(self, connection: Connection, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """Return the values of all rows in their order. Raises sqlalchemy.exc.DBAPIError."""
        return self._run(connection, parameters).fetchall()

    def change(self, connection: Connection, parameters: Mapping[str, object]) -> int:
        """Run the statement; return how many rows it changed. Raises sqlalchemy.exc.DBAPIError."""
        return self._run(connection, parameters).rowcount

    def change_each(self, connection: Connection, parameters: Sequence[Mapping[str, object]]) -> None:
        """Run the statement with each of many parameters. Raises sqlalchemy.exc.DBAPIError."""
        try:
            driver(connection).executemany(self._sql, parameters)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def insert(self, connection: Connection, parameters: Mapping[str, object]) -> int:
        """Run the statement; return the row id of the inserted row. Raises sqlalchemy.exc.DBAPIError."""
        return self._run(connection, parameters).lastrowid or 0

    def _run(self, connection: Connection, parameters: Mapping[str, object]) -> sqlite3.Cursor:
        try:
            return driver(connection).execute(self._sql, parameters)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _translated(self, error: sqlite3.Error) -> sqlalchemy.exc.DBAPIError:
        """Return the error as SQLAlchemy's, so that callers handle one kind of error."""
        found = sqlalchemy.exc.DBAPIError.instance(
            self._sql, None, error, sqlite3.Error, hide_parameters=True, dialect=_DIALECT
        )
        assert isinstance(found, sqlalchemy.exc.DBAPIError)
        return found
