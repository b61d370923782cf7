"""The outbox and its log in the ledger. Functions run inside `ledger.write` or `ledger.read`.

An entry is written in the transaction that learns its facts; only the emitter claims entries and
only the operator's commands touch dead letters.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec
from sqlalchemy import Connection, RowMapping, and_, delete, func, insert, or_, select, text, update

from engram.ledger.sql import one_of, upsert
from engram.relay.errors import NoSuchEntry, NotAbandoned
from engram.relay.model import (
    Enqueued,
    Entry,
    EntryState,
    LogLine,
    Outcome,
    Payload,
    RelayStatus,
    ScoresPayload,
    Stream,
    Unknown,
)
from engram.relay.rules import RETRY_AFTER_MAX_S, Decision, gap_payload, log_status
from engram.relay.signer import Signed
from engram.relay.tables import relay_counts, relay_log, relay_outbox, relay_signatures, relay_streams

OPEN_BOUND = 200_000
"""Entries that may wait to be sent (`relay.pending_max`); beyond it nothing new is queued. Dead letters wait for the
operator alone and do not count."""
DELIVERED_KEPT_S = 7 * 86_400.0
LOG_KEPT_S = 30 * 86_400.0
_WAITING = (EntryState.PENDING, EntryState.SENDING)
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
) -> Enqueued:
    """Queue a payload at the end of its stream, unless its nonce is known already or `bound` (OPEN_BOUND) entries wait.

    The caller reports a refusal. `block_hash` is that of the payload's block: should another block become final, the
    payload is withdrawn.
    """
    if count(connection, "pending") >= (OPEN_BOUND if bound is None else bound):
        return Enqueued.REFUSED
    kind = "scores" if isinstance(payload, ScoresPayload) else payload.kind
    stream = _stream(connection, payload.netuid, kind, signer, now)
    values = {
        "kind": kind,
        "nonce": payload.nonce,
        "output_hash": payload.output_hash,
        "block": payload.block,
        "payload": msgspec.json.encode(payload),
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
    _change_stream(connection, stream.id, next_seq=relay_streams.c.next_seq + 1, pending=relay_streams.c.pending + 1)
    _add(connection, "pending", 1)
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
    while (entry := _next(connection, now, busy)) is not None and only in (None, entry.id):
        if entry.signed and entry.signed_hash:
            signed = Signed(entry.signed, entry.signed_hash)
        elif _may_sign(connection, entry, now):
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
        _move(connection, claimed, EntryState.PENDING)
        return claimed
    return None


def due(connection: Connection, now: float, busy: Collection[int] = ()) -> Entry | None:
    """Return the entry that `claim` would take next."""
    return _next(connection, now, busy)


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
    if not _move(connection, decided, EntryState.SENDING):
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
    _add(connection, "ok" if status == "ok" else "failed", 1)
    match state:
        case EntryState.PENDING:
            _change_stream(connection, entry.stream_id, next_attempt_at=decision.next_attempt_at)
        case EntryState.DELIVERED:
            _left(connection, entry, now, last_ok_at=now, last_ok_hash=entry.output_hash)
        case EntryState.ABANDONED:
            _left(connection, entry, now, parked=relay_streams.c.parked + 1)
            _add(connection, "parked", 1)
            _mark_gap(connection, entry, decision.reason, now)
        case _:
            _left(connection, entry, now)
    return True


def withdraw(connection: Connection, entry: Entry, reason: str, now: float) -> bool:
    """Take an entry out that must never be sent; False when it waits no longer."""
    gone = msgspec.structs.replace(entry, state=EntryState.WITHDRAWN, last_reason=reason, updated_at=now)
    if not _move(connection, gone, EntryState.PENDING):
        return False
    _left(connection, entry, now)
    return True


def postpone(connection: Connection, entry: Entry, until: float) -> None:
    """Let the stream of an entry wait until then (unix seconds): its block is not final enough."""
    _change_stream(connection, entry.stream_id, next_attempt_at=until)


def interrupted(connection: Connection, decide: Callable[[Entry, Outcome], Decision], now: float) -> int:
    """Settle what was being sent when the process ended as outcome unknown; returns how many there were."""
    rows = connection.execute(select(relay_outbox).where(relay_outbox.c.state == EntryState.SENDING)).mappings()
    entries = [_entry(row) for row in rows]
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
    gone = connection.execute(delete(relay_outbox).where(relay_outbox.c.id.in_(old)))
    lines = select(relay_log.c.id).where(relay_log.c.at < now - LOG_KEPT_S).limit(_PURGED_AT_ONCE)
    connection.execute(delete(relay_log).where(relay_log.c.id.in_(lines)))
    connection.execute(delete(relay_signatures).where(relay_signatures.c.at < now - LOG_KEPT_S))
    return gone.rowcount


def count(connection: Connection, name: str) -> int:
    """Return a counter: `pending`, `parked`, `ok` or `failed`."""
    return connection.scalar(select(relay_counts.c.value).where(relay_counts.c.name == name)) or 0


def count_by_state(connection: Connection) -> dict[str, int]:
    """Return how many entries wait and how many are dead letters, by the states that operators know."""
    return {
        EntryState.PENDING.value: count(connection, "pending"),
        EntryState.ABANDONED.value: count(connection, "parked"),
    }


def streams(connection: Connection) -> list[Stream]:
    """Return all streams."""
    rows = connection.execute(select(relay_streams).order_by(relay_streams.c.id)).mappings()
    return [
        Stream(
            id=row["id"],
            netuid=row["netuid"],
            kind=row["kind"],
            signer=row["signer"],
            pending=row["pending"],
            parked=row["parked"],
            next_attempt_at=row["next_attempt_at"],
            last_ok_at=row["last_ok_at"],
            last_ok_hash=row["last_ok_hash"],
        )
        for row in rows
    ]


def heads(connection: Connection) -> list[Entry]:
    """Return the entry of each stream that is next, or under way."""
    found = (_head(connection, stream.id, _WAITING) for stream in streams(connection) if stream.pending)
    return [entry for entry in found if entry is not None]


def status(
    connection: Connection, *, enabled: bool, failures_in_a_row: int, not_queued: int = 0, held_back: str = ""
) -> RelayStatus:
    """Return how the relay stands. Costs a few rows, however many entries wait."""
    waiting = heads(connection)
    delivered = max(streams(connection), key=lambda stream: stream.last_ok_at or 0.0, default=None)
    newest = (
        select(relay_outbox.c.created_at, relay_outbox.c.updated_at)
        .where(relay_outbox.c.state == EntryState.DELIVERED)
        .order_by(relay_outbox.c.id.desc())
        .limit(1)
    )
    last = connection.execute(newest).first()
    return RelayStatus(
        enabled=enabled,
        outbox_pending=count(connection, "pending"),
        dlq_pending=sum(entry.last_reason is not None for entry in waiting),
        dlq_abandoned=count(connection, "parked"),
        total_ok=count(connection, "ok"),
        total_failed=count(connection, "failed"),
        last_ok_hash=delivered.last_ok_hash if delivered else None,
        last_ok_at=delivered.last_ok_at if delivered else None,
        oldest_pending_at=min((entry.created_at for entry in waiting), default=None),
        failures_in_a_row=failures_in_a_row,
        not_queued=not_queued,
        held_back=held_back,
        acknowledgement_lag_s=None if last is None else last.updated_at - last.created_at,
    )


def log_lines(connection: Connection, limit: int, before_id: int = 0) -> list[LogLine]:
    """Return the newest attempts, newest first; with `before_id` those older than it."""
    query = select(relay_log).order_by(relay_log.c.id.desc()).limit(limit)
    if before_id:
        query = query.where(relay_log.c.id < before_id)
    return [_line(row) for row in connection.execute(query).mappings()]


def _next(connection: Connection, now: float, busy: Collection[int]) -> Entry | None:
    is_due = or_(relay_streams.c.next_attempt_at <= now, relay_streams.c.next_attempt_at > now + _FURTHEST_S)
    query = (
        select(relay_streams.c.id)
        .where(relay_streams.c.pending > text("0"), is_due, relay_streams.c.id.not_in(list(busy)))
        .order_by(relay_streams.c.next_attempt_at, relay_streams.c.id)
        .limit(1)
    )
    stream_id = connection.scalar(query)
    return None if stream_id is None else _head(connection, stream_id, (EntryState.PENDING,))


def _head(connection: Connection, stream_id: int, states: Iterable[EntryState]) -> Entry | None:
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
            found.append(_entry(row))
    return min(found, key=lambda entry: (entry.seq, entry.id), default=None)


class _StreamRow(msgspec.Struct, frozen=True):
    id: int
    next_seq: int


def _stream(connection: Connection, netuid: int, kind: str, signer: str, now: float) -> _StreamRow:
    made = upsert(relay_streams).values(
        netuid=netuid, kind=kind, signer=signer, next_seq=1, pending=0, parked=0, next_attempt_at=now
    )
    connection.execute(made.on_conflict_do_nothing())
    query = select(relay_streams.c.id, relay_streams.c.next_seq).where(
        relay_streams.c.netuid == netuid, relay_streams.c.kind == kind, relay_streams.c.signer == signer
    )
    return _StreamRow(*connection.execute(query).one())


def _change_stream(connection: Connection, stream_id: int, **values: object) -> None:
    connection.execute(update(relay_streams).where(relay_streams.c.id == stream_id).values(**values))


def _left(connection: Connection, entry: Entry, now: float, **values: object) -> None:
    """Count an entry that waits no longer; the next of its stream may go at once."""
    values["pending"] = relay_streams.c.pending - 1
    _change_stream(connection, entry.stream_id, next_attempt_at=now, **values)
    _add(connection, "pending", -1)


def _add(connection: Connection, name: str, change: int) -> None:
    connection.execute(
        upsert(relay_counts)
        .values(name=name, value=change)
        .on_conflict_do_update(index_elements=["name"], set_={"value": relay_counts.c.value + change})
    )


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
        _change_stream(connection, entry.stream_id, pending=relay_streams.c.pending + 1)
        _add(connection, "pending", 1)


def may_sign(
    connection: Connection,
    *,
    netuid: int,
    kind: str,
    block: int,
    source: str,
    signer: str,
    output_hash: str,
    now: float,
) -> bool:
    """Commit to the only hash that is ever signed for a block, kind and source; False when another one was.

    To be committed before the signature leaves this machine, for one's own payloads and for those that are co-signed.
    """
    intent = upsert(relay_signatures).values(
        netuid=netuid, kind=kind, block=block, source=source, signer=signer, output_hash=output_hash, at=now
    )
    connection.execute(intent.on_conflict_do_nothing())
    held = select(relay_signatures.c.output_hash).where(
        relay_signatures.c.netuid == netuid,
        relay_signatures.c.kind == kind,
        relay_signatures.c.block == block,
        relay_signatures.c.source == source,
        relay_signatures.c.signer == signer,
    )
    return connection.scalar(held) == output_hash


def _may_sign(connection: Connection, entry: Entry, now: float) -> bool:
    query = select(relay_streams.c.netuid, relay_streams.c.signer).where(relay_streams.c.id == entry.stream_id)
    netuid, signer = connection.execute(query).one()
    _, _, rest = entry.nonce.partition(":")
    return may_sign(
        connection,
        netuid=netuid,
        kind=entry.kind,
        block=entry.block,
        source=rest.rpartition(":")[0],
        signer=signer,
        output_hash=entry.output_hash,
        now=now,
    )


def dlq_list(connection: Connection, limit: int = 100, after_id: int = 0) -> list[Entry]:
    """Dead letters, oldest first: a page of at most `limit` with ids above `after_id`."""
    rows = connection.execute(
        select(relay_outbox)
        .where(and_(relay_outbox.c.state == EntryState.ABANDONED, relay_outbox.c.id > after_id))
        .order_by(relay_outbox.c.id)
        .limit(limit)
    ).mappings()
    return [_entry(row) for row in rows]


def dlq_show(connection: Connection, entry_id: int) -> tuple[Entry, list[LogLine]]:
    """Return an entry in whatever state, and its latest 100 attempts, oldest first. Raises NoSuchEntry."""
    entry = _get(connection, entry_id)
    rows = connection.execute(
        select(relay_log).where(relay_log.c.outbox_id == entry_id).order_by(relay_log.c.id.desc()).limit(100)
    ).mappings()
    return entry, [_line(row) for row in rows][::-1]


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
    _add(connection, "parked", -1)
    back = 1 if to is EntryState.PENDING else 0
    _change_stream(
        connection,
        entry.stream_id,
        parked=relay_streams.c.parked - 1,
        pending=relay_streams.c.pending + back,
        next_attempt_at=now,
    )
    _add(connection, "pending", back)


def _move(connection: Connection, entry: Entry, leaves: EntryState) -> bool:
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


def _get(connection: Connection, entry_id: int) -> Entry:
    row = connection.execute(select(relay_outbox).where(relay_outbox.c.id == entry_id)).mappings().first()
    if row is None:
        raise NoSuchEntry(entry_id)
    return _entry(row)


def _entry(row: RowMapping) -> Entry:
    return Entry(
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
        stream_id=row["stream_id"],
        seq=row["seq"],
        block_hash=row["block_hash"],
    )


def _line(row: RowMapping) -> LogLine:
    return LogLine(row["outbox_id"], row["output_hash"], row["block"], row["status"], row["http_status"], row["at"])
