"""Small facts of the ledger itself: its id, and the operator's switches."""

from sqlalchemy import Connection, select

from engram.ledger.sql import upsert
from engram.ledger.tables import meta


def ledger_id(connection: Connection) -> str:
    """Return eight hex digits, made with the ledger; every node token of this ledger begins with them."""
    return str(connection.execute(select(meta.c.value).where(meta.c.key == "ledger_id")).scalar_one())


def claim_environment(connection: Connection, environment: str) -> str:
    """Return the environment whose ledger this is; the one asked for when it was nobody's until now.

    Play money's sessions must never be served for real: what was bought in one environment stays in it.
    """
    connection.execute(upsert(meta).values(key="environment", value=environment).on_conflict_do_nothing())
    return get(connection, "environment") or environment


def get(connection: Connection, key: str) -> str | None:
    """Return a stored switch, or None when it was never set."""
    value = connection.execute(select(meta.c.value).where(meta.c.key == key)).scalar_one_or_none()
    return None if value is None else str(value)


def put(connection: Connection, key: str, value: str) -> None:
    """Store a switch."""
    statement = upsert(meta).values(key=key, value=value)
    connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"value": value}))
