"""The ledger's schema versions, kept in SQLite's `user_version`; each step is one transaction."""

import secrets
from collections.abc import Callable

from sqlalchemy import Connection, insert

from . import schema
from .errors import LedgerUnusable


def migrate(connection: Connection) -> None:
    """Bring the ledger to this program's version. Raises LedgerUnusable when it is newer than the program."""
    found = version(connection)
    if found > len(MIGRATIONS):
        raise LedgerUnusable(
            f"the ledger has schema version {found}, this program knows up to {len(MIGRATIONS)}: "
            "run the newer Engram that wrote it, or restore an older backup"
        )
    for number, step in enumerate(MIGRATIONS[found:], start=found + 1):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            step(connection)
            connection.exec_driver_sql(f"PRAGMA user_version = {number}")
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")


def version(connection: Connection) -> int:
    """The schema version of an open ledger; 0 for a new file."""
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar() or 0)


def _first(connection: Connection) -> None:
    schema.metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(schema.meta).values(key="ledger_id", value=secrets.token_hex(4)))


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_first,)
