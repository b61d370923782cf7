"""Moves a SQLite ledger to PostgreSQL: copies every row, then reads both sides again and compares them row by row.

```
empty --(marker, seeds removed)--> moving --(rows, page by page)--> copied --(compared)--> moved
```

No process may have the SQLite ledger open. A move that was interrupted is begun again and goes on: a row that is there
already stays. Where the gateway has run on the file meanwhile, the comparison finds it, and all is copied anew. NUL,
which PostgreSQL's text cannot hold, becomes U+FFFD. Until the comparison has passed, no process opens the new ledger
(`moving_from` in `meta`). The old one is closed first (`moved_to`), then the new one opened, so that at no moment both
can sell. The file stays as it is.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from engram.durable.driver import sqlite3
from engram.ledger.errors import LedgerUnavailable, LedgerUnusable
from engram.ledger.facts import MOVED_TO, MOVING_FROM
from engram.ledger.postgres.faults import text_of
from engram.ledger.postgres.link import Link

PAGE: Final = 1_000
_SEEDED: Final = ("meta", "paid_clock", "relay_counts", "session_counts")
"""Tables that a new ledger is not empty in."""
_OWN: Final = frozenset({MOVED_TO, MOVING_FROM})
Row = tuple[Any, ...]


class Moved(msgspec.Struct, frozen=True):
    """What was moved: rows by table."""

    rows: dict[str, int]


class _RowDiffers(Exception):
    """The two sides are not the same."""


class _Table(msgspec.Struct, frozen=True):
    name: str
    columns: list[str]
    key: list[str]


def move(
    source: sqlite3.Connection, link: Link, on_progress: Callable[[int, int], None], on_compared: Callable[[], None]
) -> Moved:
    """Move all rows, which `on_progress` counts; both sides have this program's version. Blocks.

    `on_compared` closes the source for good, before the target is opened.

    Raises LedgerUnusable when the target holds another ledger or differs afterwards, and LedgerUnavailable.
    """
    try:
        target = link.raw
        link.ahead.leave()
        target.execute("SET statement_timeout = 0")  # a table is sorted
        target.execute("SET idle_in_transaction_session_timeout = 0")
        tables = _tables(source)
        (ledger_id,) = source.execute("SELECT value FROM meta WHERE key = 'ledger_id'").fetchone()
        is_begun = _begin(target, ledger_id)
        try:
            counts = _copy(source, target, tables, on_progress)
        except _RowDiffers:
            if not is_begun:
                raise
            _empty(target, tables, ledger_id)
            counts = _copy(source, target, tables, on_progress)
        on_compared()
        target.execute("DELETE FROM meta WHERE key = %s", (MOVING_FROM,))
    except _RowDiffers as error:
        raise LedgerUnusable(str(error)) from None
    except psycopg.Error as error:
        raise LedgerUnavailable(f"the ledger was not moved: {text_of(error)}; begin again to go on") from error
    return Moved(counts)


def _copy(
    source: sqlite3.Connection,
    target: "psycopg.Connection[Any]",
    tables: list[_Table],
    on_progress: Callable[[int, int], None],
) -> dict[str, int]:
    """Copy what is missing and compare all; return the rows of each table. Raises _RowDiffers."""
    total = sum(source.execute(f'SELECT count(*) FROM "{table.name}"').fetchone()[0] for table in tables)
    done = 0
    for table in tables:
        for page in _pages(source, table):
            _insert(target, table, page)
            done += len(page)
            on_progress(done, 2 * total)
        _number_on(target, table)
    counts = {}
    for table in tables:
        counts[table.name] = _compare(source, target, table)
        done += counts[table.name]
        on_progress(done, 2 * total)
    return counts


def _tables(source: sqlite3.Connection) -> list[_Table]:
    query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    found = []
    for (name,) in source.execute(query).fetchall():
        columns = source.execute(f'PRAGMA table_info("{name}")').fetchall()
        key = [row[1] for row in sorted((row for row in columns if row[5]), key=lambda row: row[5])]
        found.append(_Table(name, [row[1] for row in columns], key))
    return found


def _begin(target: "psycopg.Connection[Any]", ledger_id: str) -> bool:
    """Make the new ledger ready for the rows; return whether an earlier move has done so."""
    with target.transaction():
        target.execute("SELECT id FROM ledger_turn FOR UPDATE")
        held = dict(target.execute("SELECT key, value FROM meta").fetchall())
        if held.get(MOVING_FROM) == ledger_id:
            return True
        used = target.execute("SELECT EXISTS (SELECT FROM gateways)").fetchone()
        if MOVING_FROM not in held and held.get("ledger_id") == ledger_id:
            raise LedgerUnusable("the ledger was moved there already: set ledger.url to it")
        if MOVING_FROM in held or "environment" in held or (used is not None and used[0]):
            raise LedgerUnusable("the server holds another ledger there: name an empty database, or an empty schema")
        for name in _SEEDED:
            target.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
        target.execute("INSERT INTO meta VALUES (%s, %s)", (MOVING_FROM, ledger_id))
    return False


def _empty(target: "psycopg.Connection[Any]", tables: list[_Table], ledger_id: str) -> None:
    """Remove the rows that an earlier move has copied, and keep the mark of it."""
    with target.transaction():
        target.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(sql.Identifier(each.name) for each in tables)))
        target.execute("INSERT INTO meta VALUES (%s, %s)", (MOVING_FROM, ledger_id))


def _pages(source: sqlite3.Connection, table: _Table) -> Iterator[list[Row]]:
    cursor = source.execute(_select(table, '"{}"'.format))
    while page := cursor.fetchmany(PAGE):
        yield [_without_nul(row) for row in page if table.name != "meta" or row[0] not in _OWN]


def _without_nul(row: Row) -> Row:
    if not any(isinstance(value, str) and "\0" in value for value in row):
        return row
    return tuple(value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in row)


def _select(table: _Table, ordered: Callable[[str], str]) -> str:
    columns = ", ".join(f'"{column}"' for column in table.columns)
    return f'SELECT {columns} FROM "{table.name}" ORDER BY {", ".join(map(ordered, table.key))}'


def _insert(target: "psycopg.Connection[Any]", table: _Table, page: list[Row]) -> None:
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
        sql.Identifier(table.name),
        sql.SQL(", ").join(map(sql.Identifier, table.columns)),
        sql.SQL(", ").join(sql.Placeholder() * len(table.columns)),
    )
    with target.transaction(), target.cursor() as cursor:
        cursor.executemany(statement, page)


def _number_on(target: "psycopg.Connection[Any]", table: _Table) -> None:
    """Let the numbers of new rows begin after those of the rows moved."""
    for column in table.key:
        sequence = target.execute("SELECT pg_get_serial_sequence(%s, %s)", (table.name, column)).fetchone()
        if sequence is not None and sequence[0] is not None:
            newest = sql.SQL("SELECT setval(%s, greatest(1, (SELECT max({}) FROM {})))").format(
                sql.Identifier(column), sql.Identifier(table.name)
            )
            target.execute(newest, (sequence[0],))


def _compare(source: sqlite3.Connection, target: "psycopg.Connection[Any]", table: _Table) -> int:
    """Return how many rows are the same on both sides. Raises _RowDiffers at the first that is not."""
    texts = {row[0] for row in target.execute(_TEXTS, (table.name,))}
    query = _select(table, lambda column: f'"{column}"' + (' COLLATE "C"' if column in texts else ""))
    compared = 0
    with target.transaction(), target.cursor(name="compared") as there:
        there.itersize = PAGE
        there.execute(query.encode())
        moved = (row for row in there if table.name != "meta" or row[0] not in _OWN)
        for page in _pages(source, table):
            for row in page:
                if next(moved, None) != row:
                    raise _RowDiffers(f"row {compared + 1} of {table.name} differs on the server: nothing was switched")
                compared += 1
        if next(moved, None) is not None:
            raise _RowDiffers(f"{table.name} has more than {compared} rows on the server: nothing was switched")
    return compared


_TEXTS: Final = (
    "SELECT column_name FROM information_schema.columns "
    "WHERE table_schema = current_schema() AND table_name = %s AND data_type = 'text'"
)
