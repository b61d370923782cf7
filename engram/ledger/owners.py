"""Which process works a row. The embedded ledger has one process, whose rows all have the owner 0."""

from sqlalchemy import Connection

from engram.ledger.sql import OWNER


def me(connection: Connection) -> int:
    """Return the epoch that this process owns rows by; see engram.ledger.postgres.lease."""
    return int(connection.info.get(OWNER, 0))
