"""Which process works a row. The embedded ledger has one process, whose rows all have the owner 0."""

from typing import Any, Final

import trio
from sqlalchemy import Connection

from engram.ledger.port import Ledger
from engram.ledger.sql import OWNER

MEMORY: Final = "memory"
LOOK_S: Final = 0.5
ALONE: Final = 0
"""The owner of all rows where one process has the ledger for itself."""


def me(connection: Connection) -> int:
    """Return the epoch that this process owns rows by; see engram.ledger.postgres.lease."""
    return int(memory(connection).get(OWNER, ALONE))


def memory(connection: Connection) -> dict[str, Any]:
    """Return what this process remembers of a shared ledger for as long as it runs, whatever its connections do.

    Its writer and its readers share it, each in a thread of its own; a reader that connected before the process had an
    epoch knows it from then on.
    """
    found: dict[str, Any] = connection.info.setdefault(MEMORY, {})
    return found


async def until_held(ledger: Ledger) -> None:
    """Wait until this process owns what it works on for certain: to be called before an effect outside the ledger.

    A process whose lease is renewed goes on with what it knows; one whose lease was ended never does, and ends.
    """
    while not ledger.holds:  # noqa: ASYNC110 - another thread renews it
        await trio.sleep(LOOK_S)
