"""Sessions in the ledger. Functions are called inside `ledger.write` or `ledger.read` and own no transaction."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Label,
    ScalarSelect,
    Select,
    bindparam,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from engram.ledger import Ledger, Lookup, Prepared, lookup, owners
from engram.ledger.sql import OWNER
from engram.sessions import counts, history, paid_clock, rules
from engram.sessions.indexed import IndexedSession
from engram.sessions.model import (
    LIVE,
    RUNNING,
    TERMINAL,
    EndReason,
    Instant,
    RunningSession,
    Session,
    SessionEvent,
    SessionState,
    TierName,
)
from engram.sessions.tables import SESSION, sessions

R = TypeVar("R", bound=IndexedSession)

# Every purchase runs these.
_BY_ID = Prepared(paid_clock.SESSIONS.where(sessions.c.id == bindparam("id")))
# A tenth of the cost of calling the enumeration, for each row that is read.
_STATES = {str(state): state for state in SessionState}
_TIERS = {str(tier): tier for tier in TierName}
_END_REASONS = {str(reason): reason for reason in EndReason}
_STATE = Prepared(select(sessions.c.state).where(sessions.c.id == bindparam("id")))
_INSERT = Prepared(insert(sessions))
_PROGRESS = frozenset(
    {
        "state",
        "active_at",
        "ended_at",
        "end_reason",
        "error",
        "used_s",
        "counted_from",
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
    _INSERT.apply(connection, _columns(connection, session) | {OWNER: owners.me(connection)})
    counts.move(connection, None, session.state)
    history.append_event(connection, session.id, session.created_at, session.state, {})


_LOOKUP = lookup(IndexedSession, [*SESSION, *paid_clock.COLUMNS], [sessions.c.id])


def look(ledger: Ledger, session_id: str) -> Session | None:
    """Return the session of that id, read on the event loop. Raises LaneClosed."""
    found = ledger.rows(_LOOKUP, session_id)
    return found[0].session() if found else None


def lookup_with(row: type[R], of_payment: Callable[[Column[Any]], Label[Any]]) -> Lookup[R]:
    """Prepare a read of a session and what `of_payment` selects of the payment of its id, which is `row`'s last."""
    return lookup(row, [*SESSION, *paid_clock.COLUMNS, of_payment(sessions.c.payment_id)], [sessions.c.id])


def get(connection: Connection, session_id: str) -> Session | None:
    """Return the session of that id, or None."""
    row = _BY_ID.first(connection, {"id": session_id})
    return None if row is None else _session(row)


def is_mine(connection: Connection, session_id: str) -> bool:
    """Return whether this process works the session; of processes that share a ledger, one does."""
    query = select(sessions.c[OWNER] == owners.me(connection)).where(sessions.c.id == session_id)
    return bool(connection.execute(query).scalar_one_or_none())


def worked_elsewhere(connection: Connection) -> Select[tuple[str]]:
    """Return the query of the ids of sessions that have not ended and that another process works."""
    is_others = sessions.c[OWNER] != owners.me(connection)
    return select(sessions.c.id).where(is_others, sessions.c.ended_at.is_(None))


def state_of(connection: Connection, session_id: str) -> SessionState | None:
    """Return the state of the session of that id, or None."""
    found = _STATE.values(connection, {"id": session_id})
    return None if found is None else _STATES[found[0]]


def list_by_controller(connection: Connection, controller: bytes, limit: int = 200) -> list[Session]:
    """Return the newest sessions of a hotkey, newest first."""
    query = (
        paid_clock.SESSIONS.where(sessions.c.controller == controller)
        .order_by(sessions.c.created_at.desc(), sessions.c.id)
        .limit(limit)
    )
    return [_session(dict(row)) for row in connection.execute(query).mappings()]


def list_in_states(
    connection: Connection, states: Collection[SessionState], limit: int = 1_000, after_id: str = ""
) -> list[Session]:
    """Sessions in any of `states` with an id above `after_id`, by id: a page of at most `limit`."""
    query = (
        paid_clock.SESSIONS.where(sessions.c.state.in_(sorted(states)), sessions.c.id > after_id)
        .order_by(sessions.c.id)
        .limit(limit)
    )
    return [_session(dict(row)) for row in connection.execute(query).mappings()]


def list_running(connection: Connection) -> list[RunningSession]:
    """Every session of this process that a node serves."""
    node = sessions.c.node_token, sessions.c.node_endpoint, sessions.c.node_hotkey
    query = select(sessions.c.id, sessions.c.state, *node, sessions.c.quarantined_at).where(
        sessions.c.state.in_(sorted(RUNNING)), sessions.c[OWNER] == owners.me(connection)
    )
    return [
        RunningSession(session_id, _STATES[state], token or "", endpoint or "", hotkey, quarantined_at is not None)
        for session_id, state, token, endpoint, hotkey, quarantined_at in connection.execute(query)
    ]


def list_served(connection: Connection) -> list[tuple[str, TierName, float]]:
    """Return every session that has a node or is to get one, paid for or about to be: ids, tiers, seconds left."""
    query = select(sessions.c.id, sessions.c.tier, sessions.c.paid_s - sessions.c.used_s).where(
        sessions.c.state.in_(sorted(LIVE))
    )
    return [(session_id, _TIERS[tier], left) for session_id, tier, left in connection.execute(query)]


def list_unfinished(connection: Connection, limit: int) -> list[tuple[str, int]]:
    """Return sessions of this process being provisioned or stopped and not in quarantine: ids and crashes."""
    query = (
        select(sessions.c.id, sessions.c.crashes)
        .where(
            sessions.c.state.in_([str(SessionState.PROVISIONING), str(SessionState.STOPPING)]),
            sessions.c.quarantined_at.is_(None),
            sessions.c[OWNER] == owners.me(connection),
        )
        .order_by(sessions.c.created_at)
        .limit(limit)
    )
    return [(session_id, crashes) for session_id, crashes in connection.execute(query)]


def list_quarantined(connection: Connection, limit: int) -> list[str]:
    """Ids of sessions in quarantine."""
    query = select(sessions.c.id).where(sessions.c.quarantined_at.is_not(None)).limit(limit)
    return list(connection.execute(query).scalars())


def count_quarantined(connection: Connection) -> int:
    """How many sessions are in quarantine."""
    query = select(func.count()).select_from(sessions).where(sessions.c.quarantined_at.is_not(None))
    return connection.execute(query).scalar_one()


def node_hotkeys(connection: Connection, session_ids: Collection[str]) -> dict[str, bytes]:
    """Return the hotkey of each of these sessions' nodes that has one."""
    query = select(sessions.c.id, sessions.c.node_hotkey).where(
        sessions.c.id.in_(sorted(session_ids)), sessions.c.node_hotkey.is_not(None)
    )
    return dict(connection.execute(query).all())


def has_bought(connection: Connection, controller: bytes) -> bool:
    """Return whether the hotkey is that of a buyer."""
    query = select(sessions.c.id).where(sessions.c.controller == controller).limit(1)
    return connection.execute(query).first() is not None


# Conditions for other areas' queries; each finds the session by its id.


def is_unfinished(session_id: ColumnElement[str], payment_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return whether the session of that id was bought with that payment and is not over."""
    return exists().where(
        sessions.c.id == session_id, sessions.c.payment_id == payment_id, sessions.c.state.not_in(sorted(TERMINAL))
    )


def crashes_when_over(session_id: ColumnElement[str]) -> ScalarSelect[int]:
    """How often the work on the session of that id crashed; null unless it is over and not in quarantine."""
    over = sessions.c.state.in_(sorted(TERMINAL)), sessions.c.quarantined_at.is_(None)
    return select(sessions.c.crashes).where(sessions.c.id == session_id, *over).scalar_subquery()


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
    now = paid_clock.instant(connection, now)
    state = rules.next_state(before.state, event, before.end_reason)
    if state is None:
        return None
    after = _after(before, state, event, now, reason, error)
    change = _columns(connection, after) | {"row": session_id, "was": str(before.state)}
    del change["id"]
    if _UPDATE.change(connection, change) != 1:
        return None
    counts.move(connection, before.state, state)
    details: dict[str, object] = {"from": before.state, "event": event}
    if after.end_reason:
        details["reason"] = after.end_reason
    if error:
        details["error"] = error
    history.append_event(connection, session_id, now.wall, state, details)
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
    if removed.rowcount != 1:
        return False
    counts.move(connection, SessionState.FAILED, None)
    return True


def forget(connection: Connection, session_ids: Sequence[str], payment_ids: Sequence[str]) -> None:
    """Drop those of the sessions whose first payment is among `payment_ids`, with their history."""
    of_payments = sessions.c.id.in_(session_ids), sessions.c.payment_id.in_(payment_ids)
    dropped = connection.execute(delete(sessions).where(*of_payments).returning(sessions.c.id, sessions.c.state)).all()
    for _, state in dropped:
        counts.move(connection, SessionState(state), None)
    history.forget(connection, [row.id for row in dropped])


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
    history.append_event(connection, session_id, at, history.EXTENDED, {"seconds": seconds})
    return True


def set_node(connection: Connection, session_id: str, token: str, endpoint: str | None, hotkey: bytes | None) -> None:
    """Name the node that serves (or will serve) the session."""
    connection.execute(
        update(sessions)
        .where(sessions.c.id == session_id)
        .values(node_token=token, node_endpoint=endpoint, node_hotkey=hotkey)
    )


def note_store(connection: Connection, session: Session, store: str, at: float) -> bool:
    """Note what holds the node's memory from now on; return whether the session has lost what another one held."""
    emptied = session.node_store not in (None, store)
    values: dict[str, str | float | None] = {"node_store": store}
    if emptied:
        values |= {"emptied_at": at, "restored_at": None}
        history.append_event(connection, session.id, at, "memory_lost", {})
    connection.execute(update(sessions).where(sessions.c.id == session.id).values(values))
    return emptied


def note_restored(connection: Connection, session_id: str, emptied_at: float, at: float) -> Session | None:
    """Note that the controller has restored what was lost at `emptied_at`, and return the session.

    None where that is not the session's last loss, or no node serves it. Repeating it changes nothing.
    """
    session = get(connection, session_id)
    if session is None or session.emptied_at != emptied_at or session.state not in RUNNING:
        return None
    if session.restored_at is not None:
        return session
    connection.execute(update(sessions).where(sessions.c.id == session_id).values(restored_at=at))
    history.append_event(connection, session_id, at, "memory_restored", {})
    return msgspec.structs.replace(session, restored_at=at)


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
        history.append_event(connection, session_id, at, "quarantined", {"crashes": crashes})
    return get(connection, session_id)


def release_quarantine(connection: Connection, session_id: str) -> None:
    """Let the session be worked on again, with a clean count."""
    connection.execute(update(sessions).where(sessions.c.id == session_id).values(crashes=0, quarantined_at=None))


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


def _columns(connection: Connection, session: Session) -> dict[str, object]:
    columns = msgspec.structs.asdict(session)
    del columns["counted"]
    for name in ("state", "tier", "end_reason"):
        columns[name] = None if columns[name] is None else str(columns[name])
    counted = session.counted
    columns["counted_from"] = None if counted is None else paid_clock.checkpoint(connection, counted)
    return columns


def _session(columns: dict[str, Any]) -> Session:
    """Return the session of a row of paid_clock.SESSIONS, whose columns are consumed."""
    paid_clock.settle(columns)
    columns["state"] = _STATES[columns["state"]]
    columns["tier"] = _TIERS[columns["tier"]]
    columns["end_reason"] = None if columns["end_reason"] is None else _END_REASONS[columns["end_reason"]]
    return Session(**columns)
