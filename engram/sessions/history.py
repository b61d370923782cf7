"""What happened to sessions, in the ledger. Functions are called inside `ledger.write` or `ledger.read`."""

from collections.abc import Collection, Mapping, Sequence

import msgspec
from sqlalchemy import Connection, delete, func, insert, select

from engram.ledger import Prepared, owners
from engram.ledger.sql import OWNER
from engram.sessions.model import EventRecord, SessionEvent, SessionState
from engram.sessions.tables import session_events, sessions

EXTENDED = "extended"
"""The event of paid time that was added."""
PLANNED = "node_planned"
"""The event of a place and a key that were taken for a node, which is launched next."""
_STARTS_AMONG = 2_000
"""Events that are looked through for starts."""
_INSERT = Prepared(insert(session_events), ["session_id", "at", "event", "data"])
_STATES = sorted(map(str, SessionState))


def append_event(connection: Connection, session_id: str, at: float, event: str, details: Mapping[str, object]) -> None:
    """Add a row to the session's history."""
    data = msgspec.json.encode(details).decode()
    _INSERT.apply(connection, {"session_id": session_id, "at": at, "event": str(event), "data": data})


def events_since(connection: Connection, session_id: str, after_id: int = 0, limit: int = 500) -> Sequence[EventRecord]:
    """Return the session's history after event `after_id`, oldest first."""
    query = (
        select(session_events)
        .where(session_events.c.session_id == session_id, session_events.c.id > after_id)
        .order_by(session_events.c.id)
        .limit(limit)
    )
    return [EventRecord(*row) for row in connection.execute(query)]


def newest_event_id(connection: Connection) -> int:
    """Id of the newest event of any session, 0 when there is none."""
    newest: int = connection.execute(select(func.coalesce(func.max(session_events.c.id), 0))).scalar_one()
    return newest


def newest_event(connection: Connection, session_id: str) -> EventRecord:
    """Return the newest event of a session; every session has one."""
    query = (
        select(session_events)
        .where(session_events.c.session_id == session_id)
        .order_by(session_events.c.id.desc())
        .limit(1)
    )
    return EventRecord(*connection.execute(query).one())


def start_seconds(connection: Connection, limit: int = 21) -> list[float]:
    """Return how long the latest starts took (seconds from the settled payment to the node's first answer)."""
    paid, ready = session_events.alias("paid"), session_events.alias("ready")
    is_first = ready.c.data.contains(f'"event":"{SessionEvent.NODE_READY}"')
    query = (
        select(ready.c.at - paid.c.at)
        .join(paid, paid.c.session_id == ready.c.session_id)
        .where(ready.c.id > newest_event_id(connection) - _STARTS_AMONG, ready.c.event == str(SessionState.ACTIVE))
        .where(is_first, paid.c.event == str(SessionState.PROVISIONING))
        .order_by(ready.c.id.desc())
        .limit(limit)
    )
    return [max(0.0, seconds) for seconds in connection.execute(query).scalars()]


def changed_since(connection: Connection, event_id: int, limit: int = 10_000) -> dict[str, int]:
    """Sessions with events after `event_id`, each with its newest event's id. Reads at most `limit` events."""
    query = (
        select(session_events.c.session_id, session_events.c.id)
        .where(session_events.c.id > event_id)
        .order_by(session_events.c.id)
        .limit(limit)
    )
    return dict(connection.execute(query).all())


def extended_since(connection: Connection, event_id: int) -> set[str]:
    """Return the sessions of this process that were extended after event `event_id`, wherever that was paid."""
    query = (
        select(session_events.c.session_id)
        .join(sessions, sessions.c.id == session_events.c.session_id)
        .where(session_events.c.id > event_id, session_events.c.event == EXTENDED)
        .where(sessions.c[OWNER] == owners.me(connection))
    )
    return set(connection.execute(query).scalars())


def outages(connection: Connection) -> dict[str, int]:
    """Return the event that began the outage of each degraded session of this process, by session."""
    query = (
        select(session_events.c.session_id, func.max(session_events.c.id))
        .join(sessions, sessions.c.id == session_events.c.session_id)
        .where(sessions.c.state == str(SessionState.DEGRADED), sessions.c[OWNER] == owners.me(connection))
        .where(session_events.c.event == str(SessionState.DEGRADED))
        .group_by(session_events.c.session_id)
    )
    return dict(connection.execute(query).all())


def outage_s(connection: Connection, session_id: str) -> float:
    """Seconds that the session had a node no more, as its history tells."""
    query = (
        select(session_events.c.at, session_events.c.event)
        .where(session_events.c.session_id == session_id, session_events.c.event.in_(_STATES))
        .order_by(session_events.c.id)
    )
    total, since = 0.0, None
    for at, event in connection.execute(query):
        if since is not None:
            total += max(0.0, at - since)
        since = at if event == str(SessionState.DEGRADED) else None
    return total


def forget(connection: Connection, session_ids: Collection[str]) -> None:
    """Drop the history of these sessions."""
    connection.execute(delete(session_events).where(session_events.c.session_id.in_(session_ids)))
