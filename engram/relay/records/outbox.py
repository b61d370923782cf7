"""The outbox: an entry is written in the transaction that learns its facts; only the emitter claims and settles."""

from collections.abc import Callable, Collection, Iterable

import msgspec
from sqlalchemy import Connection, delete, func, insert, or_, select, text

from engram.ledger.sql import one_of, upsert
from engram.relay.model import Enqueued, Entry, EntryState, Outcome, Payload, ScoresPayload, Unknown
from engram.relay.records.rows import entry_of, move
from engram.relay.records.signatures import may_sign_entry
from engram.relay.records.streams import COUNTER_OF, add, change, count, left, stream_of
from engram.relay.rules import RETRY_AFTER_MAX_S, Decision, gap_payload, log_status
from engram.relay.signer import Signed
from engram.relay.tables import relay_log, relay_outbox, relay_signatures, relay_streams

OPEN_BOUND = 200_000
"""Entries that may wait to be sent (`relay.pending_max`); beyond it nothing new is queued. Dead letters wait for the
operator alone and do not count."""
DELIVERED_KEPT_S = 7 * 86_400.0
LOG_KEPT_S = 30 * 86_400.0
_OVER = (EntryState.DELIVERED, EntryState.DISCARDED, EntryState.WITHDRAWN)
_FURTHEST_S = 2 * RETRY_AFTER_MAX_S
"""No attempt is ever planned further ahead: one that seems to be was planned before the wall clock went back."""
_PURGED_AT_ONCE = 10_000
_GAP = "gap"


def enqueue(
    connection: Connection,
    payload: Payload,
    now: float,
    *,
    bound: int | None = None,
    block_hash: bytes | None = None,
    signer: str = "",
    signed: Signed | None = None,
) -> Enqueued:
    """Queue a payload at the end of its stream, unless its nonce is known already or `bound` (OPEN_BOUND) entries wait.

    The caller reports a refusal. With `signed` the entry is sent as it was signed by `signer` (ss58), which has
    committed to its hash. `block_hash` is that of the payload's block: should another block become final, the
    payload is withdrawn.
    """
    if count(connection, "pending") >= (OPEN_BOUND if bound is None else bound):
        return Enqueued.REFUSED
    kind = "scores" if isinstance(payload, ScoresPayload) else payload.kind
    stream = stream_of(connection, payload.netuid, kind, signer, now)
    values = {
        "kind": kind,
        "nonce": payload.nonce,
        "output_hash": payload.output_hash,
        "block": payload.block,
        "payload": msgspec.json.encode(payload),
        "signed": None if signed is None else signed.body,
        "signed_hash": None if signed is None else signed.signed_hash,
        "state": EntryState.PENDING.value,
        "attempts": 0,
        "next_attempt_at": now,
        "created_at": now,
        "updated_at": now,
        "stream_id": stream.id,
        "seq": stream.next_seq,
        "block_hash": block_hash,
    }
    written = connection.execute(upsert(relay_outbox).values(values).on_conflict_do_nothing())
    if written.rowcount != 1:
        return Enqueued.KNOWN
    change(connection, stream.id, next_seq=relay_streams.c.next_seq + 1, pending=relay_streams.c.pending + 1)
    add(connection, "pending", 1)
    return Enqueued.QUEUED


def claim(
    connection: Connection,
    now: float,
    sign: Callable[[bytes], Signed],
    busy: Collection[int] = (),
    *,
    only: int | None = None,
) -> Entry | None:
    """Return the first entry of the stream that has waited longest, now `sending` and signed; None when none is due.

    Streams in `busy` have an entry under way. With `only`, None when another entry is next. An entry is signed once:
    its second attempt sends the same bytes. One whose signature would be the second for its block and source, over
    another hash, is withdrawn instead.
    """
    while (entry := next_entry(connection, now, busy)) is not None and only in (None, entry.id):
        if entry.signed and entry.signed_hash:
            signed = Signed(entry.signed, entry.signed_hash)
        elif may_sign_entry(connection, entry, now):
            signed = sign(entry.payload)
        else:
            withdraw(connection, entry, "another payload of this block was signed before", now)
            continue
        claimed = msgspec.structs.replace(
            entry,
            signed=signed.body,
            signed_hash=signed.signed_hash,
            state=EntryState.SENDING,
            attempts=entry.attempts + 1,
            updated_at=now,
        )
        move(connection, claimed, EntryState.PENDING)
        return claimed
    return None


def due(connection: Connection, now: float, busy: Collection[int] = ()) -> Entry | None:
    """Return the entry that `claim` would take next."""
    return next_entry(connection, now, busy)


def settle(connection: Connection, entry: Entry, outcome: Outcome, decision: Decision, now: float) -> bool:
    """Write the outcome of an attempt into the log and what was decided into the entry and its stream.

    False, and nothing is written, when the entry is no longer `sending`.
    """
    state = decision.state
    if state is EntryState.ABANDONED and entry.kind == _GAP:
        state = EntryState.DISCARDED
    decided = msgspec.structs.replace(
        entry,
        state=state,
        attempts=decision.attempts,
        next_attempt_at=decision.next_attempt_at,
        last_reason=decision.reason,
        updated_at=now,
    )
    if not move(connection, decided, EntryState.SENDING):
        return False
    status = log_status(outcome)
    connection.execute(
        insert(relay_log).values(
            outbox_id=entry.id,
            output_hash=entry.output_hash,
            block=entry.block,
            status=status,
            http_status=getattr(outcome, "http_status", None),
            at=now,
        )
    )
    add(connection, "ok" if status == "ok" else "failed", 1)
    match state:
        case EntryState.PENDING:
            change(connection, entry.stream_id, next_attempt_at=decision.next_attempt_at)
        case EntryState.DELIVERED:
            left(connection, entry, now, last_ok_at=now, last_ok_hash=entry.output_hash)
        case EntryState.ABANDONED:
            left(connection, entry, now, parked=relay_streams.c.parked + 1)
            _mark_gap(connection, entry, decision.reason, now)
        case _:
            left(connection, entry, now)
    return True


def withdraw(connection: Connection, entry: Entry, reason: str, now: float) -> bool:
    """Take an entry out that must never be sent; False when it waits no longer."""
    gone = msgspec.structs.replace(entry, state=EntryState.WITHDRAWN, last_reason=reason, updated_at=now)
    if not move(connection, gone, EntryState.PENDING):
        return False
    left(connection, entry, now)
    return True


def postpone(connection: Connection, entry: Entry, until: float) -> None:
    """Let the stream of an entry wait until then (unix seconds): its block is not final enough."""
    change(connection, entry.stream_id, next_attempt_at=until)


def interrupted(connection: Connection, decide: Callable[[Entry, Outcome], Decision], now: float) -> int:
    """Settle what was being sent when the process ended as outcome unknown; returns how many there were."""
    rows = connection.execute(select(relay_outbox).where(relay_outbox.c.state == EntryState.SENDING)).mappings()
    entries = [entry_of(row) for row in rows]
    outcome = Unknown("the process ended during the attempt")
    for entry in entries:
        settle(connection, entry, outcome, decide(entry, outcome), now)
    return len(entries)


def next_attempt_at(connection: Connection, busy: Collection[int] = ()) -> float | None:
    """Return when the next attempt is due (unix seconds), None when nothing waits."""
    query = select(func.min(relay_streams.c.next_attempt_at)).where(
        relay_streams.c.pending > text("0"), relay_streams.c.id.not_in(list(busy))
    )
    found: float | None = connection.scalar(query)
    return found


def purge(connection: Connection, now: float) -> int:
    """Forget at most 10,000 entries that were over 7 days ago, and as many log lines of 30 days ago; returns how many
    entries went."""
    over = one_of(relay_outbox.c.state, _OVER)
    old = (
        select(relay_outbox.c.id).where(over, relay_outbox.c.updated_at < now - DELIVERED_KEPT_S).limit(_PURGED_AT_ONCE)
    )
    by_state = (
        select(relay_outbox.c.state, func.count()).where(relay_outbox.c.id.in_(old)).group_by(relay_outbox.c.state)
    )
    for state, entries in connection.execute(by_state).all():
        add(connection, COUNTER_OF[EntryState(state)], -entries)
    gone = connection.execute(delete(relay_outbox).where(relay_outbox.c.id.in_(old)))
    lines = select(relay_log.c.id).where(relay_log.c.at < now - LOG_KEPT_S).limit(_PURGED_AT_ONCE)
    connection.execute(delete(relay_log).where(relay_log.c.id.in_(lines)))
    connection.execute(delete(relay_signatures).where(relay_signatures.c.at < now - LOG_KEPT_S))
    return gone.rowcount


def next_entry(connection: Connection, now: float, busy: Collection[int]) -> Entry | None:
    """Return the first entry of the stream that has waited longest, outside of `busy`; None when none is due."""
    is_due = or_(relay_streams.c.next_attempt_at <= now, relay_streams.c.next_attempt_at > now + _FURTHEST_S)
    query = (
        select(relay_streams.c.id)
        .where(relay_streams.c.pending > text("0"), is_due, relay_streams.c.id.not_in(list(busy)))
        .order_by(relay_streams.c.next_attempt_at, relay_streams.c.id)
        .limit(1)
    )
    stream_id = connection.scalar(query)
    return None if stream_id is None else head(connection, stream_id, (EntryState.PENDING,))


def head(connection: Connection, stream_id: int, states: Iterable[EntryState]) -> Entry | None:
    """Return the first entry of a stream that is in one of the states."""
    found = []
    for state in states:
        query = (
            select(relay_outbox)
            .where(relay_outbox.c.stream_id == stream_id, relay_outbox.c.state == str(state))
            .order_by(relay_outbox.c.seq, relay_outbox.c.id)
            .limit(1)
        )
        row = connection.execute(query).mappings().first()
        if row is not None:
            found.append(entry_of(row))
    return min(found, key=lambda entry: (entry.seq, entry.id), default=None)


def _mark_gap(connection: Connection, entry: Entry, reason: str, now: float) -> None:
    """Put a signed marker into the place of a parked entry, before all that waits behind it."""
    netuid = connection.scalar(select(relay_streams.c.netuid).where(relay_streams.c.id == entry.stream_id)) or 0
    marker = gap_payload(entry, netuid, reason, now)
    values = {
        "kind": _GAP,
        "nonce": marker.nonce,
        "output_hash": marker.output_hash,
        "block": marker.block,
        "payload": msgspec.json.encode(marker),
        "state": EntryState.PENDING.value,
        "attempts": 0,
        "next_attempt_at": now,
        "created_at": now,
        "updated_at": now,
        "stream_id": entry.stream_id,
        "seq": entry.seq,
    }
    if connection.execute(upsert(relay_outbox).values(values).on_conflict_do_nothing()).rowcount == 1:
        change(connection, entry.stream_id, pending=relay_streams.c.pending + 1)
        add(connection, "pending", 1)
