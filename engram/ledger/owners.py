"""Which process works a row. The embedded ledger has one process, whose rows all have the owner 0."""

from typing import Final

from sqlalchemy import Connection

from engram.ledger.sql import OWNER

ALONE: Final = 0
"""The owner of all rows where one process has the ledger for itself."""


def me(connection: Connection) -> int:
    """Return the epoch that this process owns rows by; see engram.ledger.postgres.lease."""
    return int(connection.info.get(OWNER, ALONE))
