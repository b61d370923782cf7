"""Facts about the ledger itself: its id, its environment, and the operator's switches."""

from typing import Final

from sqlalchemy import Connection, select

from engram.ledger.sql import upsert
from engram.ledger.tables import meta

MOVED_TO: Final = "moved_to"
"""Where a ledger was moved to: this copy is not used any more."""
MOVING_FROM: Final = "moving_from"
"""The id of the ledger whose rows are still being moved here."""


def ledger_id(connection: Connection) -> str:
    """Return the ledger's id: eight hex digits created with it, the prefix of all its node tokens."""
    return str(connection.execute(select(meta.c.value).where(meta.c.key == "ledger_id")).scalar_one())


def claim_environment(connection: Connection, environment: str) -> str:
    """Return the ledger's environment, which is set to `environment` if the ledger had none.

    Sessions bought with play money must never be served for real: a ledger never changes its environment.
    """
    connection.execute(upsert(meta).values(key="environment", value=environment).on_conflict_do_nothing())
    return get(connection, "environment") or environment


def get(connection: Connection, key: str) -> str | None:
    """Return the value of a switch, None when it was never set."""
    value = connection.execute(select(meta.c.value).where(meta.c.key == key)).scalar_one_or_none()
    return None if value is None else str(value)


def put(connection: Connection, key: str, value: str) -> None:
    """Store a switch."""
    statement = upsert(meta).values(key=key, value=value)
    connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"value": value}))
