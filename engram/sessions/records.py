"""Sessions in the ledger. Functions are called inside `ledger.write` or `ledger.read` and own no transaction."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, bindparam, case, delete, func, insert, or_, select, update

from engram.ledger import Ledger, Prepared, Row, lookup
from engram.ledger.schema import session_events, sessions
from engram.sessions import rules
from engram.sessions.model import (
    HELD,
    LIVE,
    RUNNING,
    EndReason,
    EventRecord,
    Instant,
    Session,
    SessionEvent,
    SessionState,
    TierName,
)

# Every purchase runs these.
_BY_ID = Prepared(select(sessions).where(sessions.c.id == bindparam("id")))
# A tenth of the cost of calling the enumeration, for each row that is read.
_STATES = {str(state): state for state in SessionState}
_TIERS = {str(tier): tier for tier in TierName}
_END_REASONS = {str(reason): reason for reason in EndReason}
_INSERT = Prepared(insert(sessions))
_INSERT_EVENT = Prepared(insert(session_events), ["session_id", "at", "event", "data"])
_PROGRESS = frozenset(
    {
        "state",
        "active_at",
        "ended_at",
        "end_reason",
        "error",
        "used_s",
        "counted_wall",
        "counted_monotonic",
        "counted_boot",
        "crashes",
        "quarantined_at",
    }
)
"""Columns that transitions change; naming the others as well would make SQLite rewrite their indexes."""
_UPDATE = Prepared(
    update(sessions)
    .where(sessions.c.id == bindparam("row"), sessions.c.state == bindparam("was"))
    .values({column: bindparam(column.name) for column in sessions.c if column.name in _PROGRESS})
)


def insert_session(connection: Connection, session: Session) -> None:
    """Add a session and the first event of its history."""
    _INSERT.change(connection, _columns(session))
    append_event(connection, session.id, session.created_at, session.state, {})


_LOOKUP = lookup(list(sessions.c), [sessions.c.id])


def look(ledger: Ledger, session_id: str) -> Session | None:
    """The session of that id, read on the event loop. Raises LaneClosed."""
    found = ledger.rows(_LOOKUP, session_id)
    return _session(found[0]) if found else None


def get(connection: Connection, session_id: str) -> Session | None:
    """The session of that id, or None."""
    row = _BY_ID.first(connection, {"id": session_id})
    return None if row is None else _session(row)


def list_by_controller(connection: Connection, controller: bytes, limit: int = 200) -> list[Session]:
    """The newest sessions of a hotkey, newest first."""
    query = (
        select(sessions)
        .where(sessions.c.controller == controller)
        .order_by(sessions.c.created_at.desc(), sessions.c.id)
        .limit(limit)
    )
    return [_session(row) for row in connection.execute(query).mappings()]


def list_in_states(
    connection: Connection, states: Collection[SessionState], limit: int = 1_000, after_id: str = ""
) -> list[Session]:
    """Sessions in any of `states` with an id above `after_id`, by id: a page of at most `limit`."""
    query = (
        select(sessions)
        .where(sessions.c.state.in_(sorted(states)), sessions.c.id > after_id)
        .order_by(sessions.c.id)
        .limit(limit)
    )
    return [_session(row) for row in connection.execute(query).mappings()]


def count_live(connection: Connection, controller: bytes) -> int:
    """Sessions that count towards the limit of this hotkey."""
    query = (
        select(func.count())
        .select_from(sessions)
        .where(sessions.c.controller == controller, sessions.c.state.in_(sorted(LIVE)))
    )
    return connection.execute(query).scalar_one()


def count_held(connection: Connection) -> int:
    """Sessions that hold a place: all that are not over."""
    query = select(func.count()).select_from(sessions).where(sessions.c.state.in_(sorted(HELD)))
    return connection.execute(query).scalar_one()


def count_by_state(connection: Connection) -> dict[SessionState, int]:
    """How many sessions are in each state that has any."""
    query = select(sessions.c.state, func.count()).group_by(sessions.c.state)
    return {SessionState(state): count for state, count in connection.execute(query)}


def transition(
    connection: Connection,
    session_id: str,
    event: SessionEvent,
    now: Instant,
    *,
    reason: EndReason | None = None,
    error: str | None = None,
) -> Session | None:
    """Apply `event` and append it to the history; returns the session as it is then.

    Returns None when there is no such session or the event does not apply in its state (nothing is changed).
    `reason` belongs to SessionEvent.END, `error` is the text shown to the user. Paid time starts at NODE_READY
    and is settled when the session leaves the running states. END lifts a quarantine.
    """
    before = get(connection, session_id)
    if before is None:
        return None
    state = rules.next_state(before.state, event, before.end_reason)
    if state is None:
        return None
    after = _after(before, state, event, now, reason, error)
    change = _columns(after) | {"row": session_id, "was": str(before.state)}
    del change["id"]
    if _UPDATE.change(connection, change) != 1:
        return None
    details: dict[str, object] = {"from": before.state, "event": event}
    if after.end_reason:
        details["reason"] = after.end_reason
    if error:
        details["error"] = error
    append_event(connection, session_id, now.wall, state, details)
    return after


def remove_unpaid(connection: Connection, session_id: str) -> bool:
    """Take away a session whose payment failed, so that the same purchase may begin again under its id.

    Its history stays. False, with nothing changed, when it ended for another reason or has not ended.
    """
    removed = connection.execute(
        delete(sessions).where(
            sessions.c.id == session_id,
            sessions.c.state == str(SessionState.FAILED),
            sessions.c.end_reason == str(EndReason.PAYMENT),
        )
    )
    return removed.rowcount == 1


def forget(connection: Connection, session_ids: Sequence[str], payment_ids: Sequence[str]) -> None:
    """Drop those of the sessions whose first payment is among `payment_ids`, with their history."""
    unpaid = select(sessions.c.id).where(sessions.c.id.in_(session_ids), sessions.c.payment_id.in_(payment_ids))
    ids = list(connection.execute(unpaid).scalars())
    connection.execute(delete(session_events).where(session_events.c.session_id.in_(ids)))
    connection.execute(delete(sessions).where(sessions.c.id.in_(ids)))


def hold_extension(connection: Connection, session_id: str) -> bool:
    """Pause expiry while an extension is being paid for. False when no time can be added any more."""
    held = connection.execute(
        update(sessions)
        .where(sessions.c.id == session_id, sessions.c.state.in_(sorted(LIVE)))
        .values(pending_extensions=sessions.c.pending_extensions + 1)
    )
    return held.rowcount == 1


def release_extension(connection: Connection, session_id: str) -> None:
    """End one hold of `hold_extension`, whatever became of the payment."""
    connection.execute(
        update(sessions)
        .where(sessions.c.id == session_id, sessions.c.pending_extensions > 0)
        .values(pending_extensions=sessions.c.pending_extensions - 1)
    )


def add_seconds(connection: Connection, session_id: str, seconds: float, usd_micros: int, at: float) -> bool:
    """Add paid time. False, with nothing changed, when the session is stopping or over."""
    added = connection.execute(
        update(sessions)
        .where(sessions.c.id == session_id, sessions.c.state.in_(sorted(LIVE)))
        .values(paid_s=sessions.c.paid_s + seconds, amount_usd_micros=sessions.c.amount_usd_micros + usd_micros)
    )
    if added.rowcount != 1:
        return False
    append_event(connection, session_id, at, "extended", {"seconds": seconds})
    return True


def checkpoint_paid_time(connection: Connection, now: Instant) -> None:
    """Settle the used time of every running session as of `now`, so that a later reboot loses or adds little."""
    running = sessions.c.state.in_(sorted(RUNNING))
    for same_boot, passed in (
        (sessions.c.counted_boot == now.boot, now.monotonic - sessions.c.counted_monotonic),
        (sessions.c.counted_boot != now.boot, now.wall - sessions.c.counted_wall),
    ):
        connection.execute(
            update(sessions)
            .where(running, same_boot)
            .values(
                used_s=sessions.c.used_s + func.max(0.0, passed),
                counted_wall=now.wall,
                counted_monotonic=now.monotonic,
                counted_boot=now.boot,
            )
        )


def expired(connection: Connection, now: Instant, limit: int = 500) -> list[str]:
    """Ids of running sessions whose time is up; the same as rules.has_expired."""
    pause_s = case((sessions.c.pending_extensions > 0, rules.EXTENSION_PAUSE_S), else_=0.0)
    left = sessions.c.paid_s - sessions.c.used_s + pause_s
    query = (
        select(sessions.c.id)
        .where(
            sessions.c.state.in_(sorted(RUNNING)),
            or_(
                (sessions.c.counted_boot == now.boot) & (now.monotonic - sessions.c.counted_monotonic >= left),
                (sessions.c.counted_boot != now.boot) & (now.wall - sessions.c.counted_wall >= left),
                left <= 0.0,
            ),
        )
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def set_node(connection: Connection, session_id: str, token: str, endpoint: str | None, hotkey: bytes | None) -> None:
    """Name the node that serves (or will serve) the session."""
    connection.execute(
        update(sessions)
        .where(sessions.c.id == session_id)
        .values(node_token=token, node_endpoint=endpoint, node_hotkey=hotkey)
    )


def set_launch_attempts(connection: Connection, session_id: str, attempts: int) -> None:
    """Note how many launches were begun."""
    connection.execute(update(sessions).where(sessions.c.id == session_id).values(launch_attempts=attempts))


def count_crash(connection: Connection, session_id: str, at: float, quarantine_after: int = 5) -> Session | None:
    """Count one crash of the session's worker; at `quarantine_after` of them the session is quarantined."""
    session = get(connection, session_id)
    if session is None:
        return None
    crashes = session.crashes + 1
    quarantined_at = session.quarantined_at or (at if crashes >= quarantine_after else None)
    connection.execute(
        update(sessions).where(sessions.c.id == session_id).values(crashes=crashes, quarantined_at=quarantined_at)
    )
    if quarantined_at is not None and session.quarantined_at is None:
        append_event(connection, session_id, at, "quarantined", {"crashes": crashes})
    return get(connection, session_id)


def release_quarantine(connection: Connection, session_id: str) -> None:
    """Let the session be worked on again, with a clean count."""
    connection.execute(update(sessions).where(sessions.c.id == session_id).values(crashes=0, quarantined_at=None))


def append_event(connection: Connection, session_id: str, at: float, event: str, details: Mapping[str, object]) -> int:
    """Add a row to the session's history; returns its id."""
    data = msgspec.json.encode(details).decode()
    return _INSERT_EVENT.insert(connection, {"session_id": session_id, "at": at, "event": str(event), "data": data})


def events_since(connection: Connection, session_id: str, after_id: int = 0, limit: int = 500) -> Sequence[EventRecord]:
    """The session's history after event `after_id`, oldest first."""
    query = (
        select(session_events)
        .where(session_events.c.session_id == session_id, session_events.c.id > after_id)
        .order_by(session_events.c.id)
        .limit(limit)
    )
    return [
        EventRecord(row["id"], row["session_id"], row["at"], row["event"], row["data"])
        for row in connection.execute(query).mappings()
    ]


def _after(
    before: Session,
    state: SessionState,
    event: SessionEvent,
    now: Instant,
    reason: EndReason | None,
    error: str | None,
) -> Session:
    after = msgspec.structs.replace(
        before,
        state=state,
        end_reason=before.end_reason or rules.end_reason_of(event, reason),
        error=error or before.error,
    )
    if event is SessionEvent.NODE_READY:
        after = msgspec.structs.replace(after, active_at=now.wall, used_s=0.0, counted=now)
    if before.state in RUNNING and state not in RUNNING:
        after = msgspec.structs.replace(after, used_s=rules.used_s(before, now), counted=None)
    if event is SessionEvent.END:  # stopping is worked on afresh, also for a session that was in quarantine
        after = msgspec.structs.replace(after, crashes=0, quarantined_at=None)
    if rules.is_over(after):
        after = msgspec.structs.replace(after, ended_at=now.wall)
    return after


def _columns(session: Session) -> dict[str, object]:
    columns = msgspec.structs.asdict(session)
    counted = columns.pop("counted")
    for name in ("state", "tier", "end_reason"):
        columns[name] = None if columns[name] is None else str(columns[name])
    columns["counted_wall"] = counted.wall if counted else None
    columns["counted_monotonic"] = counted.monotonic if counted else None
    columns["counted_boot"] = counted.boot if counted else None
    return columns


def _session(row: RowMapping | Row) -> Session:
    columns: dict[str, Any] = {**row}
    wall, monotonic, boot = columns.pop("counted_wall"), columns.pop("counted_monotonic"), columns.pop("counted_boot")
    columns["counted"] = None if boot is None else Instant(wall, monotonic, boot)
    columns["state"] = _STATES[columns["state"]]
    columns["tier"] = _TIERS[columns["tier"]]
    columns["end_reason"] = None if columns["end_reason"] is None else _END_REASONS[columns["end_reason"]]
    return Session(**columns)
