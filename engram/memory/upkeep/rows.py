"""Rows of a node's databases as they are, for an archive: read from one snapshot, written to new files.

Every column is carried but `sequence`, which numbers the changes of one database and is counted again in another. What
a later version adds to a table is carried without a change here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engram.durable.driver import sqlite3
from engram.memory.errors import MemoryAreaError
from engram.memory.store import notebook_db, record_sql
from engram.memory.upkeep import data_files
from engram.memory.upkeep.data_files import NOTEBOOK, TRUTH
from engram.memory.upkeep.export_pages import KINDS, SOURCES, Kind

__all__ = ["KINDS", "Kind", "Row", "Snapshot", "UnknownColumns", "snapshot", "write"]

Row = tuple[object, ...]
"""Values of SQLite: int, float, str, bytes, None."""
_COUNTED_AGAIN: Final = "sequence"
_READ_AT_ONCE: Final = 256
_SYNCED_LATER: Final = "PRAGMA synchronous = OFF"
"""New files are brought to disk by whoever puts them in place."""


class UnknownColumns(MemoryAreaError):
    """The rows have columns that this version's tables lack."""


class Snapshot:
    """A node's databases at one moment each."""

    def __init__(self, truth: sqlite3.Connection, notebook: sqlite3.Connection | None) -> None:
        self._truth = truth
        self._notebook = notebook

    def columns(self, kind: Kind) -> tuple[str, ...]:
        """Return the names of the columns of a kind's rows."""
        connection = self._of(kind)
        return () if connection is None else _columns(connection, kind)

    def rows(self, kind: Kind, owner: bytes) -> Iterator[Row]:
        """Yield the rows of a kind that a node's controller with this public key owns, in their order."""
        connection = self._of(kind)
        if connection is None:
            return
        names = ", ".join(_columns(connection, kind))
        source = SOURCES[kind]
        found = connection.execute(
            f"SELECT {names} FROM {source.table} WHERE {source.controllers} ORDER BY rowid", (owner, owner.hex())
        )
        while page := found.fetchmany(_READ_AT_ONCE):
            yield from page

    def count(self, kind: Kind) -> int:
        """Return how many rows of a kind there are, of all owners."""
        connection = self._of(kind)
        if connection is None:
            return 0
        return int(connection.execute(f"SELECT count(*) FROM {SOURCES[kind].table}").fetchone()[0])

    def _of(self, kind: Kind) -> sqlite3.Connection | None:
        return self._truth if kind == "record" else self._notebook


@contextmanager
def snapshot(data: Path) -> Iterator[Snapshot]:
    """Open the databases of a node's folder; the node may run. Raises StoreDamaged, TruthUnavailable."""
    with data_files.reading(data / TRUTH) as truth:
        if not (data / NOTEBOOK).exists():
            yield Snapshot(truth, None)
            return
        with data_files.reading(data / NOTEBOOK) as notebook:
            yield Snapshot(truth, notebook)


class NewStores:
    """New, empty databases in a folder, filled row by row."""

    def __init__(self, folder: Path, truth_id: str) -> None:
        self._truth = sqlite3.connect(folder / TRUTH, isolation_level=None)
        self._truth.execute(_SYNCED_LATER)
        self._truth.execute("BEGIN")
        record_sql.create_schema(self._truth, truth_id)
        notebook_db.Notebook.open(folder / NOTEBOOK).close()
        self._notebook = sqlite3.connect(folder / NOTEBOOK, isolation_level=None)
        self._notebook.execute(_SYNCED_LATER)
        self._notebook.execute("BEGIN")
        self._sequence = 0

    def add(self, kind: Kind, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert rows. Raises UnknownColumns."""
        connection = self._truth if kind == "record" else self._notebook
        unknown = set(columns) - set(_columns(connection, kind))
        if unknown:
            raise UnknownColumns(f"{kind} rows have {', '.join(sorted(unknown))}: a newer version of Engram reads them")
        if not rows:
            return
        needless = _null_by_default(connection, kind)
        filled: dict[str, Iterable[object]] = {
            name: _quick_to_bind(values)
            for name, values in zip(columns, zip(*rows, strict=True), strict=True)
            if name not in needless or values.count(None) < len(values)
        }
        if kind == "record":
            filled[_COUNTED_AGAIN] = range(self._sequence + 1, self._sequence + 1 + len(rows))
            self._sequence += len(rows)
        places = ", ".join("?" * len(filled))
        statement = f"INSERT INTO {SOURCES[kind].table} ({', '.join(filled)}) VALUES ({places})"
        connection.executemany(statement, zip(*filled.values(), strict=True))

    def close(self, *, keep: bool) -> None:
        """Commit where `keep` says so; close both databases."""
        if keep:
            record_sql.write_meta(self._truth, _COUNTED_AGAIN, str(self._sequence))
        for connection in (self._truth, self._notebook):
            connection.execute("COMMIT" if keep else "ROLLBACK")
            connection.execute("PRAGMA journal_mode = DELETE")  # one file each, to be put in place
            connection.close()


@contextmanager
def write(folder: Path, truth_id: str) -> Iterator[NewStores]:
    """Make a node's databases in an existing folder; they stay empty when the block raises, and are not synced.

    Raises OSError.
    """
    writer = NewStores(folder, truth_id)
    done = False
    try:
        yield writer
        done = True
    finally:
        writer.close(keep=done)


def _columns(connection: sqlite3.Connection, kind: Kind) -> tuple[str, ...]:
    found = connection.execute(f"SELECT name FROM pragma_table_info('{SOURCES[kind].table}') ORDER BY cid")
    return tuple(name for (name,) in found if name != _COUNTED_AGAIN)


def _null_by_default(connection: sqlite3.Connection, kind: Kind) -> frozenset[str]:
    """Return the columns that are NULL where an INSERT leaves them out. Binding a NULL takes the driver 1 µs."""
    found = connection.execute(f"SELECT name FROM pragma_table_info('{SOURCES[kind].table}') WHERE dflt_value IS NULL")
    return frozenset(name for (name,) in found)


def _quick_to_bind(values: Sequence[object]) -> Iterable[object]:
    """Return the same values in types for which the driver does not look for an adapter: a third of an INSERT."""
    return map(bytearray, values) if {*map(type, values)} == {bytes} else values  # type: ignore[arg-type]
