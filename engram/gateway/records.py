"""What the surface reads from the ledger beyond the areas' own records."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, func, select

from engram.ledger import Ledger
from engram.ledger.schema import payments, session_events
from engram.payments import records as payment_records
from engram.sessions import EventRecord, Session
from engram.sessions import records as session_records


class Found(msgspec.Struct, frozen=True):
    """A session and the transaction of its first payment, None while there is none."""

    session: Session
    transaction: str | None


def find(connection: Connection, session_id: str) -> Found | None:
    """The session of this id."""
    session = session_records.get(connection, session_id)
    return None if session is None else _with_transactions(connection, [session])[0]


def look(ledger: Ledger, session_id: str) -> Found | None:
    """The session of this id, read on the event loop. Raises LaneClosed."""
    session = session_records.look(ledger, session_id)
    return None if session is None else Found(session, payment_records.look_at_transaction(ledger, session.payment_id))


def of_controller(connection: Connection, controller: bytes, limit: int) -> list[Found]:
    """The newest sessions of a hotkey, newest first."""
    return _with_transactions(connection, session_records.list_by_controller(connection, controller, limit))


def newest_event_id(connection: Connection) -> int:
    """Id of the newest event of any session, 0 when there is none."""
    newest: int = connection.execute(select(func.coalesce(func.max(session_events.c.id), 0))).scalar_one()
    return newest


def newest_event(connection: Connection, session_id: str) -> EventRecord:
    """The newest event of a session; every session has one."""
    query = (
        select(session_events)
        .where(session_events.c.session_id == session_id)
        .order_by(session_events.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).mappings().one()
    return EventRecord(row["id"], row["session_id"], row["at"], row["event"], row["data"])


def sessions_changed_since(connection: Connection, event_id: int, limit: int = 10_000) -> dict[str, int]:
    """Sessions with events after `event_id`, each with its newest event's id. Reads at most `limit` events."""
    recent = (
        select(session_events.c.session_id, session_events.c.id)
        .where(session_events.c.id > event_id)
        .order_by(session_events.c.id)
        .limit(limit)
        .subquery()
    )
    query = select(recent.c.session_id, func.max(recent.c.id).label("newest")).group_by(recent.c.session_id)
    return {row["session_id"]: row["newest"] for row in connection.execute(query).mappings()}


def _with_transactions(connection: Connection, sessions: Sequence[Session]) -> list[Found]:
    ids = sorted(session.payment_id for session in sessions)
    query = select(payments.c.id, payments.c.transaction_hash).where(payments.c.id.in_(ids))
    by_payment = {row["id"]: row["transaction_hash"] for row in connection.execute(query).mappings()}
    return [Found(session, by_payment.get(session.payment_id)) for session in sessions]
