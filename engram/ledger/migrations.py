"""The steps from each schema version of the ledger to the next."""

import secrets
from collections.abc import Callable
from importlib import resources

from sqlalchemy import Connection


def _script(connection: Connection, name: str) -> None:
    """Run the statements of `steps/name`."""
    for statement in (resources.files("engram.ledger") / "steps" / name).read_text(encoding="utf-8").split(";\n"):
        connection.exec_driver_sql(statement)


def _first(connection: Connection) -> None:
    _script(connection, "first.sql")
    connection.exec_driver_sql("INSERT INTO meta VALUES ('ledger_id', ?)", (secrets.token_hex(4),))


def _refunds_are_sent(connection: Connection) -> None:
    """Add the columns and tables for sent refunds and payment identifiers, which new ledgers have already."""
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
    # Refunds owed from before are sent from now on.
    connection.exec_driver_sql("UPDATE payments SET next_attempt_at = updated_at WHERE state = 'refund_due'")


def _sessions_are_counted(connection: Connection) -> None:
    _script(connection, "session_counts.sql")


def _paid_time_has_one_clock(connection: Connection) -> None:
    _script(connection, "paid_clock.sql")


def _nodes_run_on_akash(connection: Connection) -> None:
    _script(connection, "akash.sql")


def _validators_keep_rounds(connection: Connection) -> None:
    _script(connection, "validator.sql")


def _jobs_of_the_proxy(connection: Connection) -> None:
    _script(connection, "proxy_jobs.sql")


def _relay_has_streams(connection: Connection) -> None:
    _script(connection, "relay_streams.sql")


def _nodes_sign_by_session_keys(connection: Connection) -> None:
    _script(connection, "session_keys.sql")


def _receivers_keep_payloads(connection: Connection) -> None:
    _script(connection, "xeris.sql")


def _sessions_know_their_store(connection: Connection) -> None:
    _script(connection, "session_store.sql")


def _relay_counts_what_it_keeps(connection: Connection) -> None:
    _script(connection, "relay_counts.sql")


def _workers_keep_jobs(connection: Connection) -> None:
    _script(connection, "worker_jobs.sql")


def _validators_find_a_quorum(connection: Connection) -> None:
    _script(connection, "relay_quorum.sql")


def _receivers_know_all_signers(connection: Connection) -> None:
    _script(connection, "xeris_signatures.sql")


def _submissions_are_paid_and_logged(connection: Connection) -> None:
    _script(connection, "paid_submissions.sql")


def _outputs_are_anchored(connection: Connection) -> None:
    _script(connection, "relay_anchors.sql")


def _what_is_overdue_is_counted(connection: Connection) -> None:
    _script(connection, "xeris_overdue.sql")


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    _first,
    _refunds_are_sent,
    _sessions_are_counted,
    _paid_time_has_one_clock,
    _nodes_run_on_akash,
    _validators_keep_rounds,
    _jobs_of_the_proxy,
    _relay_has_streams,
    _nodes_sign_by_session_keys,
    _receivers_keep_payloads,
    _sessions_know_their_store,
    _relay_counts_what_it_keeps,
    _workers_keep_jobs,
    _validators_find_a_quorum,
    _receivers_know_all_signers,
    _submissions_are_paid_and_logged,
    _outputs_are_anchored,
    _what_is_overdue_is_counted,
)
