"""The outbox and its log in the ledger. Functions run inside `ledger.write` or `ledger.read`.

An entry is written in the transaction that learns its facts; only the emitter claims entries and
only the operator's commands touch dead letters.
"""

from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import Connection, RowMapping, and_, delete, func, insert, or_, select, update

from engram.ledger.sql import upsert
from engram.relay.errors import NoSuchEntry, NotAbandoned
from engram.relay.model import (
    DeliveryUnknown,
    Enqueued,
    EntryState,
    LogLine,
    OutboxEntry,
    Outcome,
    Payload,
    RelayStatus,
    ScoresPayload,
)
from engram.relay.rules import RETRY_AFTER_MAX_S, EntryDecision, log_status
from engram.relay.signer import Signed
from engram.relay.tables import relay_log, relay_outbox

OPEN_BOUND = 10_000
"""Entries that may wait to be sent; beyond it nothing new is queued. Dead letters wait for the operator alone."""
DELIVERED_KEPT_S = 7 * 86_400.0
LOG_KEPT_S = 30 * 86_400.0
_WAITING = (EntryState.PENDING, EntryState.SENDING)
_FURTHEST_S = 2 * RETRY_AFTER_MAX_S
"""No attempt is ever planned further ahead: one that seems to be was planned before the wall clock went back."""


def enqueue(connection: Connection, payload: Payload, now: float) -> Enqueued:
    """Queues a payload, unless its nonce is known already or 10,000 entries wait. The caller reports a refusal."""
    waiting = select(relay_outbox.c.id).where(relay_outbox.c.state.in_(_WAITING)).limit(OPEN_BOUND).subquery()
    if (connection.scalar(select(func.count()).select_from(waiting)) or 0) >= OPEN_BOUND:
        return Enqueued.REFUSED
    values = {
        "kind": "scores" if isinstance(payload, ScoresPayload) else payload.kind,
        "nonce": payload.nonce,
        "output_hash": payload.output_hash,
        "block": payload.block,
        "payload": msgspec.json.encode(payload),
        "state": EntryState.PENDING.value,
        "attempts": 0,
        "next_attempt_at": now,
        "created_at": now,
        "updated_at": now,
    }
    written = connection.execute(upsert(relay_outbox).values(values).on_conflict_do_nothing())
    return Enqueued.QUEUED if written.rowcount == 1 else Enqueued.KNOWN


def claim(connection: Connection, now: float, sign: Callable[[bytes], Signed]) -> OutboxEntry | None:
    """Return the oldest entry whose time has come, now `sending` and signed; None when there is none.

    An entry is signed once: its second attempt sends the same bytes.
    """
    due = or_(relay_outbox.c.next_attempt_at <= now, relay_outbox.c.next_attempt_at > now + _FURTHEST_S)
    row = (
        connection.execute(
            select(relay_outbox)
            .where(and_(relay_outbox.c.state == EntryState.PENDING, due))
            .order_by(relay_outbox.c.id)
            .limit(1)
        )
        .mappings()
        .first()
    )
    if row is None:
        return None
    entry = _entry(row)
    signed = Signed(entry.signed, entry.signed_hash) if entry.signed and entry.signed_hash else sign(entry.payload)
    claimed = msgspec.structs.replace(
        entry,
        signed=signed.body,
        signed_hash=signed.signed_hash,
        state=EntryState.SENDING,
        attempts=entry.attempts + 1,
        updated_at=now,
    )
    _move(connection, claimed, EntryState.PENDING)
    return claimed


def settle(connection: Connection, entry: OutboxEntry, outcome: Outcome, decision: EntryDecision, now: float) -> bool:
    """Write the outcome of an attempt into the log and what was decided into the entry.

    False, and nothing is written, when the entry is no longer `sending`.
    """
    decided = msgspec.structs.replace(
        entry,
        state=decision.state,
        attempts=decision.attempts,
        next_attempt_at=decision.next_attempt_at,
        last_reason=decision.reason,
        updated_at=now,
    )
    if not _move(connection, decided, EntryState.SENDING):
        return False
    http_status = getattr(outcome, "http_status", None)
    connection.execute(
        insert(relay_log).values(
            outbox_id=entry.id,
            output_hash=entry.output_hash,
            block=entry.block,
            status=log_status(outcome),
            http_status=http_status,
            at=now,
        )
    )
    return True


def interrupted(connection: Connection, decide: Callable[[OutboxEntry, Outcome], EntryDecision], now: float) -> int:
    """Settles what was being sent when the process ended as outcome unknown; how many there were."""
    rows = connection.execute(select(relay_outbox).where(relay_outbox.c.state == EntryState.SENDING)).mappings()
    entries = [_entry(row) for row in rows]
    outcome = DeliveryUnknown("the process ended during the attempt")
    for entry in entries:
        settle(connection, entry, outcome, decide(entry, outcome), now)
    return len(entries)


def next_attempt_at(connection: Connection) -> float | None:
    """When the next attempt is due (unix seconds), None when nothing waits."""
    query = select(func.min(relay_outbox.c.next_attempt_at)).where(relay_outbox.c.state == EntryState.PENDING)
    found: float | None = connection.scalar(query)
    return found


def purge(connection: Connection, now: float) -> int:
    """Forgets what was delivered or discarded 7 days ago, and log lines of 30 days ago; how many entries went."""
    done = relay_outbox.c.state.in_((EntryState.DELIVERED, EntryState.DISCARDED))
    gone = connection.execute(
        delete(relay_outbox).where(and_(done, relay_outbox.c.updated_at < now - DELIVERED_KEPT_S))
    )
    connection.execute(delete(relay_log).where(relay_log.c.at < now - LOG_KEPT_S))
    return gone.rowcount


def count_by_state(connection: Connection) -> dict[str, int]:
    """How many entries are in each state that has any."""
    query = select(relay_outbox.c.state, func.count()).group_by(relay_outbox.c.state)
    return dict(connection.execute(query).all())


def status(connection: Connection, *, enabled: bool, failures_in_a_row: int, not_queued: int = 0) -> RelayStatus:
    """How the relay stands."""
    pending = relay_outbox.c.state.in_(_WAITING)
    failed = and_(pending, relay_outbox.c.last_reason.is_not(None))
    last_ok = connection.execute(
        select(relay_log.c.output_hash, relay_log.c.at)
        .where(relay_log.c.status == "ok")
        .order_by(relay_log.c.id.desc())
        .limit(1)
    ).first()
    oldest: float | None = connection.scalar(select(func.min(relay_outbox.c.created_at)).where(pending))
    return RelayStatus(
        enabled=enabled,
        outbox_pending=connection.scalar(select(func.count()).where(pending)) or 0,
        dlq_pending=connection.scalar(select(func.count()).where(failed)) or 0,
        dlq_abandoned=connection.scalar(select(func.count()).where(relay_outbox.c.state == EntryState.ABANDONED)) or 0,
        total_ok=connection.scalar(select(func.count()).where(relay_log.c.status == "ok")) or 0,
        total_failed=connection.scalar(select(func.count()).where(relay_log.c.status != "ok")) or 0,
        last_ok_hash=last_ok.output_hash if last_ok else None,
        last_ok_at=last_ok.at if last_ok else None,
        oldest_pending_at=oldest,
        failures_in_a_row=failures_in_a_row,
        not_queued=not_queued,
    )


def dlq_list(connection: Connection, limit: int = 100, after_id: int = 0) -> list[OutboxEntry]:
    """Dead letters, oldest first: a page of at most `limit` with ids above `after_id`."""
    rows = connection.execute(
        select(relay_outbox)
        .where(and_(relay_outbox.c.state == EntryState.ABANDONED, relay_outbox.c.id > after_id))
        .order_by(relay_outbox.c.id)
        .limit(limit)
    ).mappings()
    return [_entry(row) for row in rows]


def dlq_show(connection: Connection, entry_id: int) -> tuple[OutboxEntry, list[LogLine]]:
    """Return an entry in whatever state, and its latest 100 attempts, oldest first. Raises NoSuchEntry."""
    entry = _get(connection, entry_id)
    rows = connection.execute(
        select(relay_log).where(relay_log.c.outbox_id == entry_id).order_by(relay_log.c.id.desc()).limit(100)
    ).mappings()
    lines = [
        LogLine(row["outbox_id"], row["output_hash"], row["block"], row["status"], row["http_status"], row["at"])
        for row in rows
    ]
    return entry, lines[::-1]


def dlq_retry(connection: Connection, entry_id: int, now: float) -> None:
    """Put a dead letter back with all its attempts. Raises NoSuchEntry or NotAbandoned."""
    _leave_dlq(connection, entry_id, EntryState.PENDING, now)


def dlq_retry_all(connection: Connection, now: float) -> Sequence[int]:
    """Put every dead letter back with all its attempts; their numbers."""
    abandoned = relay_outbox.c.state == EntryState.ABANDONED
    ids = connection.scalars(select(relay_outbox.c.id).where(abandoned).order_by(relay_outbox.c.id)).all()
    for entry_id in ids:
        _leave_dlq(connection, entry_id, EntryState.PENDING, now)
    return ids


def dlq_discard(connection: Connection, entry_id: int, now: float) -> None:
    """Give a dead letter up; it is forgotten after 7 days. Raises NoSuchEntry or NotAbandoned."""
    _leave_dlq(connection, entry_id, EntryState.DISCARDED, now)


def _leave_dlq(connection: Connection, entry_id: int, to: EntryState, now: float) -> None:
    entry = _get(connection, entry_id)
    left = msgspec.structs.replace(entry, state=to, attempts=0, next_attempt_at=now, updated_at=now)
    if not _move(connection, left, EntryState.ABANDONED):
        raise NotAbandoned(entry_id, entry.state.value)


def _move(connection: Connection, entry: OutboxEntry, leaves: EntryState) -> bool:
    moved = connection.execute(
        update(relay_outbox)
        .where(and_(relay_outbox.c.id == entry.id, relay_outbox.c.state == leaves.value))
        .values(
            signed=entry.signed,
            signed_hash=entry.signed_hash,
            state=entry.state.value,
            attempts=entry.attempts,
            next_attempt_at=entry.next_attempt_at,
            last_reason=entry.last_reason,
            updated_at=entry.updated_at,
        )
    )
    return moved.rowcount == 1


def _get(connection: Connection, entry_id: int) -> OutboxEntry:
    row = connection.execute(select(relay_outbox).where(relay_outbox.c.id == entry_id)).mappings().first()
    if row is None:
        raise NoSuchEntry(entry_id)
    return _entry(row)


def _entry(row: RowMapping) -> OutboxEntry:
    return OutboxEntry(
        id=row["id"],
        kind=row["kind"],
        nonce=row["nonce"],
        output_hash=row["output_hash"],
        block=row["block"],
        payload=row["payload"],
        signed=row["signed"],
        signed_hash=row["signed_hash"],
        state=EntryState(row["state"]),
        attempts=row["attempts"],
        next_attempt_at=row["next_attempt_at"],
        last_reason=row["last_reason"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
