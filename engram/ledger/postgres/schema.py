"""Brings a PostgreSQL ledger to this program's version.

A new ledger gets the tables of the first version that PostgreSQL kept, as one script. Later steps are those of SQLite:
their scripts are written once, in SQLite's words, and translated (engram.ledger.migrations). A step that moves rows in
words that cannot be translated has a script of its own name in `steps/postgresql`.

One process migrates, whoever comes first: an advisory lock is held until COMMIT, and all steps are one transaction.
"""

import secrets
from typing import Final

import psycopg
from sqlalchemy import Connection

from engram.ledger.errors import LedgerUnavailable, LedgerUnusable
from engram.ledger.migrations import MIGRATIONS, read_script
from engram.ledger.postgres.faults import is_fault, original, text_of
from engram.ledger.postgres.link import Link

BASELINE: Final = 17
"""The schema version of `steps/postgresql/baseline.sql`."""
LOCK: Final = 0x656E6772616D
"""The key of the advisory lock; one ledger migrates at a time in a database."""
WAIT_MS: Final = 60_000


def version(connection: Connection) -> int:
    """Return the schema version of an open ledger; 0 for an empty schema."""
    if connection.exec_driver_sql("SELECT to_regclass('ledger_schema')").scalar() is None:
        return 0
    return int(connection.exec_driver_sql("SELECT version FROM ledger_schema").scalar_one())


def migrate(link: Link) -> None:
    """Bring the ledger to this program's version, or create it; blocks.

    Raises LedgerUnusable when a newer program has written it, LedgerUnavailable when the server refuses.
    """
    connection = link.handle
    try:
        _refuse_newer(found := version(connection))
        if found == len(MIGRATIONS):
            return
        connection.exec_driver_sql("BEGIN")
        try:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {WAIT_MS}")
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
            found = version(connection)  # another process may have done it meanwhile
            _refuse_newer(found)
            if found == 0:
                _create(connection)
                found = BASELINE
            for step in MIGRATIONS[found:]:
                step(connection)
            connection.exec_driver_sql(f"UPDATE ledger_schema SET version = {len(MIGRATIONS)}")
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            if not link.raw.closed:
                connection.exec_driver_sql("ROLLBACK")
            raise
    except Exception as error:
        if is_fault(error) or isinstance(original(error), psycopg.errors.InsufficientPrivilege):
            raise LedgerUnavailable(f"the ledger's tables cannot be made: {text_of(error)}") from error
        raise


def _create(connection: Connection) -> None:
    for name in ("shared.sql", "baseline.sql"):
        connection.exec_driver_sql(read_script(f"postgresql/{name}"))
    connection.exec_driver_sql("INSERT INTO meta VALUES ('ledger_id', %s)", (secrets.token_hex(4),))


def _refuse_newer(found: int) -> None:
    if found > len(MIGRATIONS):
        raise LedgerUnusable(
            f"the ledger has schema version {found}, this program knows up to {len(MIGRATIONS)}: run the newer Engram "
            "that wrote it, or restore an older backup"
        )
