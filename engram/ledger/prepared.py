"""Statements of hot transactions, compiled once and run on the driver's own connection.

Running a statement through SQLAlchemy costs 60 to 100 microseconds, of which SQLite takes 5 to 20. SQLAlchemy still
generates the text, from the one description of the tables, but does not execute it. Values are passed and returned as
the ledger keeps them: integers, reals, text and bytes. On PostgreSQL a statement is compiled at its first use, and its
connection sends it ahead of its result where nobody needs that (engram.ledger.postgres.ahead).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias, final

import sqlalchemy.exc
from sqlalchemy import Connection, Delete, Insert, Select, Update
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

from engram.durable.driver import sqlite3

Row: TypeAlias = dict[str, object]
Statement: TypeAlias = Select[*tuple[Any, ...]] | Insert | Update | Delete

_DIALECT: Final = sqlite.dialect(paramstyle="named")


def driver(connection: Connection) -> sqlite3.Connection:
    """Return the SQLite connection under a ledger's connection."""
    raw: object = connection.connection.dbapi_connection
    assert isinstance(raw, sqlite3.Connection), "the ledger is SQLite"
    return raw


class Remote(Protocol):
    """A connection to another process, which runs prepared statements; see the methods of Prepared."""

    def rows(self, prepared: "Prepared", parameters: Mapping[str, object]) -> list[tuple[Any, ...]]: ...

    def change(self, prepared: "Prepared", parameters: Mapping[str, object]) -> int: ...

    def apply(self, prepared: "Prepared", parameters: Mapping[str, object]) -> None: ...


def _remote(raw: Any) -> Remote:
    found: Remote = raw.ahead
    return found


@final
class Prepared:
    """One statement; its parameters are the names of its `bindparam`s, an insert's those of its columns."""

    __slots__ = ("_columns", "_keys", "_sql", "_statement")

    def __init__(self, statement: Statement, keys: Sequence[str] | None = None) -> None:
        """Compile a statement; `keys` are the columns that an insert fills, None for all.

        Raises ValueError for a literal value in the statement: give it a name with `bindparam`.
        """
        self._statement: Final = statement
        self._keys: Final = None if keys is None else list(keys)
        compiled = self.compiled(_DIALECT)
        fixed = sorted(name for name, bind in compiled.binds.items() if bind.value is not None and not bind.required)
        if fixed:
            raise ValueError(f"{', '.join(fixed)}: values stand in a prepared statement as literals or as parameters")
        self._sql: Final = str(compiled)
        self._columns: Final = tuple(statement.selected_columns.keys()) if isinstance(statement, Select) else ()

    def compiled(self, dialect: Dialect) -> SQLCompiler:
        """Compile the statement for a dialect."""
        found = self._statement.compile(dialect=dialect, column_keys=self._keys)
        assert isinstance(found, SQLCompiler)
        return found

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
        raw: object = connection.connection.dbapi_connection
        if isinstance(raw, sqlite3.Connection):
            found: tuple[Any, ...] | None = self._run(raw, parameters).fetchone()
            return found
        rows = _remote(raw).rows(self, parameters)
        return rows[0] if rows else None

    def rows(self, connection: Connection, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """Return the values of all rows in their order. Raises sqlalchemy.exc.DBAPIError."""
        raw: object = connection.connection.dbapi_connection
        if isinstance(raw, sqlite3.Connection):
            return self._run(raw, parameters).fetchall()
        return _remote(raw).rows(self, parameters)

    def change(self, connection: Connection, parameters: Mapping[str, object]) -> int:
        """Run the statement; return how many rows it changed. Raises sqlalchemy.exc.DBAPIError."""
        raw: object = connection.connection.dbapi_connection
        if isinstance(raw, sqlite3.Connection):
            return self._run(raw, parameters).rowcount
        return _remote(raw).change(self, parameters)

    def apply(self, connection: Connection, parameters: Mapping[str, object]) -> None:
        """Run a statement whose result is not used: cheaper than `change` where the database is another process.

        Raises sqlalchemy.exc.DBAPIError, or the transaction fails with it later.
        """
        raw: object = connection.connection.dbapi_connection
        if isinstance(raw, sqlite3.Connection):
            self._run(raw, parameters)
        else:
            _remote(raw).apply(self, parameters)

    def apply_each(self, connection: Connection, parameters: Sequence[Mapping[str, object]]) -> None:
        """Run the statement with each of many parameters, as `apply` does."""
        raw: object = connection.connection.dbapi_connection
        if not isinstance(raw, sqlite3.Connection):
            remote = _remote(raw)
            for each in parameters:
                remote.apply(self, each)
            return
        try:
            raw.executemany(self._sql, parameters)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def insert(self, connection: Connection, parameters: Mapping[str, object]) -> int:
        """Insert a row into a table that numbers its rows; return the number. Raises sqlalchemy.exc.DBAPIError."""
        raw: object = connection.connection.dbapi_connection
        if isinstance(raw, sqlite3.Connection):
            return self._run(raw, parameters).lastrowid or 0
        return int(_remote(raw).rows(self, parameters)[0][0])

    def _run(self, raw: sqlite3.Connection, parameters: Mapping[str, object]) -> sqlite3.Cursor:
        try:
            return raw.execute(self._sql, parameters)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _translated(self, error: sqlite3.Error) -> sqlalchemy.exc.DBAPIError:
        """Return the error as SQLAlchemy's, so that callers handle one kind of error."""
        found = sqlalchemy.exc.DBAPIError.instance(
            self._sql, None, error, sqlite3.Error, hide_parameters=True, dialect=_DIALECT
        )
        assert isinstance(found, sqlalchemy.exc.DBAPIError)
        return found
