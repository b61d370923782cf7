"""The steps from each schema version of the ledger to the next."""

import secrets
from collections.abc import Callable

from sqlalchemy import Connection, insert

from engram.ledger import schema


def _first(connection: Connection) -> None:
    schema.metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(schema.meta).values(key="ledger_id", value=secrets.token_hex(4)))


def _refunds_are_sent(connection: Connection) -> None:
    """Add what sending refunds and payment identifiers need to ledgers of before; new ones have it already."""
    for table, wanted in (
        ("payments", ("identifier TEXT",)),
        (
            "refunds",
            (
                "sender BLOB",
                "payload BLOB",
                "requirements BLOB",
                "valid_before INTEGER",
                "signed_at REAL",
                "attempts INTEGER NOT NULL DEFAULT 0",
                "answer TEXT",
            ),
        ),
    ):
        has = {row[1] for row in connection.exec_driver_sql(f"PRAGMA table_info({table})")}
        for column in wanted:
            if column.split()[0] not in has:
                connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column}")
    connection.exec_driver_sql(
        "CREATE INDEX IF NOT EXISTS ix_payments_identifier ON payments (controller, identifier) "
        "WHERE identifier IS NOT NULL"
    )
    # What was owed before refunds were sent is taken up now.
    connection.exec_driver_sql("UPDATE payments SET next_attempt_at = updated_at WHERE state = 'refund_due'")


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_first, _refunds_are_sent)
