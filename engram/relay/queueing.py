"""Queues payloads, and has the emitter look at once."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from engram.ledger import Ledger

T = TypeVar("T")


async def queue(ledger: Ledger, transaction: Callable[[Connection], T], outbox_changed: Callable[[], object]) -> T:
    """Write to the outbox and return the transaction's value. Raises LedgerError.

    The hint is given twice. By the first, the emitter's claim stands behind the transaction in the ledger's queue, and
    one COMMIT makes both durable: that saves a payload the wait for a disk. The second hint is for an emitter that was
    at work when the first one came, and claimed before this transaction.
    """
    outbox_changed()
    value = await ledger.write(transaction)
    outbox_changed()
    return value
