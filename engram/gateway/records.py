"""The surface's own ledger queries, which join tables of several areas."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection

from engram.ledger import Ledger
from engram.payments import records as payment_records
from engram.sessions import Session
from engram.sessions import records as session_records
from engram.sessions.indexed import IndexedSession


class FoundSession(msgspec.Struct, frozen=True):
    """A session and the transaction of its first payment, None while there is none."""

    session: Session
    transaction: str | None


class _FoundRow(IndexedSession, frozen=True, array_like=True):
    transaction_hash: str | None


_LOOKUP = session_records.lookup_with(_FoundRow, payment_records.transaction_of)


def find(connection: Connection, session_id: str) -> FoundSession | None:
    """Return the session of this id."""
    session = session_records.get(connection, session_id)
    return None if session is None else _with_transactions(connection, [session])[0]


def look(ledger: Ledger, session_id: str) -> FoundSession | None:
    """Return the session of this id, read on the event loop. Raises LaneClosed."""
    found = ledger.rows(_LOOKUP, session_id)
    return FoundSession(found[0].session(), found[0].transaction_hash) if found else None


def of_controller(connection: Connection, controller: bytes, limit: int) -> list[FoundSession]:
    """Return the newest sessions of a hotkey, newest first."""
    return _with_transactions(connection, session_records.list_by_controller(connection, controller, limit))


def _with_transactions(connection: Connection, sessions: Sequence[Session]) -> list[FoundSession]:
    transactions = payment_records.transactions_of(connection, [session.payment_id for session in sessions])
    return [FoundSession(session, transactions.get(session.payment_id)) for session in sessions]
