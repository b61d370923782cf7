"""Which process works a row. The embedded ledger has one process, whose rows all have the owner 0."""

from typing import Any, Final

from sqlalchemy import Connection

from engram.ledger.sql import OWNER

MEMORY: Final = "memory"
ALONE: Final = 0
"""The owner of all rows where one process has the ledger for itself."""


def me(connection: Connection) -> int:
    """Return the epoch that this process owns rows by; see engram.ledger.postgres.lease."""
    return int(connection.info.get(OWNER, ALONE))


def memory(connection: Connection) -> dict[str, Any]:
    """Return what this process remembers of a shared ledger for as long as it runs, whatever its connections do.

    Its writer and its readers share it, each in a thread of its own.
    """
    found: dict[str, Any] = connection.info.setdefault(MEMORY, {})
    return found
