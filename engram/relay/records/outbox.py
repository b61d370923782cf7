"""The outbox: an entry is written in the transaction that learns its facts; only the emitter claims and settles."""

from collections.abc import Callable, Iterable

import msgspec
from sqlalchemy import Connection, delete, func, select

from engram.ledger.sql import one_of
from engram.relay.errors import NotWaiting
from engram.relay.model import Enqueued, Entry, EntryState, Outcome, Payload, Unknown
from engram.relay.negotiation import Fitted, Terms, fitted, not_taken
from engram.relay.records import statements
from engram.relay.records.rows import entry_of, move
from engram.relay.records.signatures import forget_signatures, may_sign_entry, signer_of
from engram.relay.records.streams import COUNTER_OF, add, change, count, left, stream_of
from engram.relay.rules import GAP, Decision, gap_payload, kind_of, log_status
from engram.relay.signer import Signed
from engram.relay.tables import relay_log, relay_outbox, relay_streams

OPEN_BOUND = 200_000
"""Entries that may wait to be sent (`relay.pending_max`); beyond it nothing new is queued. Dead letters wait for the
operator alone and do not count."""
DELIVERED_KEPT_S = 7 * 86_400.0
LOG_KEPT_S = 30 * 86_400.0
OVER = (EntryState.DELIVERED, EntryState.DISCARDED, EntryState.WITHDRAWN)
"""States of entries that are purged in time."""
PURGED_AT_ONCE = 10_000
UNSENT_AT_ONCE = 100
"""A backlog that the receiver takes in no form holds up no other write for long."""


def enqueue(
    connection: Connection,
    payload: Payload,
    now: float,
    *,
    bound: int | None = None,
    block_hash: bytes | None = None,
    signer: str,
    signed: Signed | None = None,
) -> Enqueued:
    """Queue a payload at the end of its stream, unless its nonce is known already or `bound` (OPEN_BOUND) entries wait.

    The caller reports a refusal. The stream is that of its subnet, kind and `signer` (ss58), which signs it when it is
    claimed; with `signed` it is sent as that one has signed it, having committed to its hash. `block_hash` is that of
    the payload's block: should another block become final, the payload is withdrawn.
    """
    if count(connection, "pending") >= (OPEN_BOUND if bound is None else bound):
        return Enqueued.REFUSED
    kind = kind_of(payload)
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
    if statements.INSERT_ENTRY.change(connection, values) != 1:
        return Enqueued.KNOWN
    statements.STREAM_GREW.apply(connection, {"stream": stream.id})
    add(connection, "pending", 1)
    return Enqueued.QUEUED


def claim(
    connection: Connection,
    now: float,
    sign: Callable[[bytes, str], Signed | None],
    *,
    room: int = 1,
    may_leave: Callable[[Entry], bool] = lambda entry: True,
    terms: Terms | None = None,
    unsent: Callable[[Entry], None] = lambda entry: None,
) -> list[Entry]:
    """Return the next entries of at most `room` streams, now `sending` and signed; longest waiting streams first.

    A stream with an entry under way is left out. No entry is taken that may not leave yet. An entry is
    signed once: its second attempt sends the same bytes. One whose signature would be the second for its block and
    source, over another hash, is withdrawn instead; one whose signer (ss58) `sign` does not have is parked. With
    `terms`, what is signed is the form that the receiver takes; a payload that it takes in no form is parked, whoever
    has signed it. `unsent` is called with each entry that was withdrawn, parked or discarded here: UNSENT_AT_ONCE at
    most, so that less may be returned than is due.
    """
    claimed: list[Entry] = []
    gone = 0
    while len(claimed) < room and gone < UNSENT_AT_ONCE:
        found = due(connection, now, min(room - len(claimed), UNSENT_AT_ONCE - gone))
        entries = [_taken(connection, entry, now, sign, terms, unsent) for entry in found if may_leave(entry)]
        claimed += [entry for entry in entries if entry is not None]
        if None not in entries:  # one that was withdrawn or parked has another behind it
            break
        gone += entries.count(None)
    return claimed


def _taken(
    connection: Connection,
    entry: Entry,
    now: float,
    sign: Callable[[bytes, str], Signed | None],
    terms: Terms | None,
    unsent: Callable[[Entry], None],
) -> Entry | None:
    """Return the entry signed and `sending`; None when it may not be sent."""
    signed = Signed(entry.signed or b"", entry.signed_hash or "")
    form = Fitted(entry.payload, entry.output_hash)
    is_retried = bool(entry.signed) and entry.last_reason is not None  # by the operator, who may know better
    if terms is not None and entry.attempts == 0 and not is_retried:
        found = fitted(entry.kind, entry.payload, terms)
        if found is None:
            unsent(park(connection, entry, not_taken(entry.kind, terms), now))
            return None
        form = found
    if not (entry.signed and entry.signed_hash):
        entry = msgspec.structs.replace(entry, output_hash=form.output_hash)
        if not may_sign_entry(connection, entry, now):
            withdrawn = withdraw(connection, entry, "another payload of this block was signed before", now)
            if withdrawn is not None:
                unsent(withdrawn)
            return None
        hotkey = signer_of(connection, entry)
        made = sign(form.payload, hotkey)
        if made is None:
            unsent(park(connection, entry, f"the key of its signer {hotkey} is not in this process", now))
            return None
        signed = made
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


def due(connection: Connection, now: float, most: int = 1) -> list[Entry]:
    """Return the entries that `claim` would take next: the first of each due stream without one under way."""
    found = statements.DUE_STREAMS.rows(connection, {"now": now, "furthest": now + statements.FURTHEST_S, "most": most})
    heads = (head(connection, stream_id, (EntryState.PENDING,)) for (stream_id,) in found)
    return [entry for entry in heads if entry is not None]


def settle(connection: Connection, entry: Entry, outcome: Outcome, decision: Decision, now: float) -> bool:
    """Write the outcome of an attempt into the log and what was decided into the entry and its stream.

    False, and nothing is written, when the entry is no longer `sending`.
    """
    state = decision.state
    if state is EntryState.ABANDONED and entry.kind == GAP:
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
    line = {
        "outbox_id": entry.id,
        "output_hash": entry.output_hash,
        "block": entry.block,
        "status": status,
        "http_status": getattr(outcome, "http_status", None),
        "at": now,
    }
    statements.LOG.apply(connection, line)
    add(connection, "ok" if status == "ok" else "failed", 1)
    match state:
        case EntryState.PENDING:
            change(connection, entry.stream_id, next_attempt_at=decision.next_attempt_at)
        case EntryState.DELIVERED:
            done = {"stream": entry.stream_id, "now": now, "hash": entry.output_hash}
            statements.STREAM_DELIVERED.apply(connection, done)
        case EntryState.ABANDONED:
            left(connection, entry, now, parked=relay_streams.c.parked + 1)
            _mark_gap(connection, entry, decision.reason, now)
        case _:
            left(connection, entry, now)
    return True


def withdraw(connection: Connection, entry: Entry, reason: str, now: float) -> Entry | None:
    """Take an entry out that must never be sent, and return it; None when it waits no longer."""
    gone = msgspec.structs.replace(entry, state=EntryState.WITHDRAWN, last_reason=reason, updated_at=now)
    if not move(connection, gone, EntryState.PENDING):
        return None
    left(connection, entry, now)
    return gone


def park(connection: Connection, entry: Entry, reason: str, now: float) -> Entry:
    """Park an entry that waits, behind a gap marker, and return it; a marker is discarded. Raises NotWaiting."""
    state = EntryState.DISCARDED if entry.kind == GAP else EntryState.ABANDONED
    parked = msgspec.structs.replace(entry, state=state, last_reason=reason, updated_at=now)
    if not move(connection, parked, EntryState.PENDING):
        raise NotWaiting(entry.id, entry.state.value)
    if state is EntryState.DISCARDED:
        left(connection, entry, now)
        return parked
    left(connection, entry, now, parked=relay_streams.c.parked + 1)
    _mark_gap(connection, entry, reason, now)
    return parked


def postpone(connection: Connection, entries: Iterable[Entry], until: float) -> None:
    """Let the streams of entries wait until then (unix seconds): their block is not final enough."""
    for entry in entries:
        change(connection, entry.stream_id, next_attempt_at=until)


def interrupted(
    connection: Connection, decide: Callable[[Entry, Outcome], Decision], now: float
) -> list[tuple[Entry, Decision]]:
    """Settle what was being sent when the process ended as outcome unknown; returns what was decided of each."""
    rows = connection.execute(select(relay_outbox).where(relay_outbox.c.state == EntryState.SENDING)).mappings()
    entries = [entry_of(row) for row in rows]
    outcome = Unknown("the process ended during the attempt")
    decided = [(entry, decide(entry, outcome)) for entry in entries]
    for entry, decision in decided:
        settle(connection, entry, outcome, decision, now)
    return decided


def next_attempt_at(connection: Connection) -> float | None:
    """Return when the next attempt is due (unix seconds), None when nothing waits that is not under way."""
    found = statements.NEXT_ATTEMPT.values(connection, {})
    return None if found is None else float(found[0])


def purge(connection: Connection, now: float, log_kept_s: float = LOG_KEPT_S) -> int:
    """Forget entries that were over 7 days ago, and log lines older than `log_kept_s`; return the larger number of the
    two, which is at most PURGED_AT_ONCE."""
    over = one_of(relay_outbox.c.state, OVER)
    old = (
        select(relay_outbox.c.id).where(over, relay_outbox.c.updated_at < now - DELIVERED_KEPT_S).limit(PURGED_AT_ONCE)
    )
    by_state = (
        select(relay_outbox.c.state, func.count()).where(relay_outbox.c.id.in_(old)).group_by(relay_outbox.c.state)
    )
    for state, entries in connection.execute(by_state).all():
        add(connection, COUNTER_OF[EntryState(state)], -entries)
    gone = connection.execute(delete(relay_outbox).where(relay_outbox.c.id.in_(old)))
    lines = select(relay_log.c.id).where(relay_log.c.at < now - log_kept_s).limit(PURGED_AT_ONCE)
    gone_lines = connection.execute(delete(relay_log).where(relay_log.c.id.in_(lines)))
    forget_signatures(connection, now)
    return max(gone.rowcount, gone_lines.rowcount)


def last_delivered(connection: Connection) -> Signed | None:
    """Return what was delivered last, as it was sent; None where nothing was, or all of it is purged."""
    columns = relay_outbox.c.signed, relay_outbox.c.signed_hash
    delivered = one_of(relay_outbox.c.state, OVER), relay_outbox.c.state == EntryState.DELIVERED  # the first: its index
    query = select(*columns).where(*delivered).order_by(relay_outbox.c.updated_at.desc(), relay_outbox.c.id.desc())
    found = connection.execute(query.limit(1)).first()
    return None if found is None else Signed(found.signed, found.signed_hash)


def head(connection: Connection, stream_id: int, states: Iterable[EntryState]) -> Entry | None:
    """Return the first entry of a stream that is in one of the states."""
    rows = [statements.HEAD.first(connection, {"stream": stream_id, "state": str(state)}) for state in states]
    found = [entry_of(row) for row in rows if row is not None]
    return min(found, key=lambda entry: (entry.seq, entry.id), default=None)


def _mark_gap(connection: Connection, entry: Entry, reason: str, now: float) -> None:
    """Put a signed marker into the place of a parked entry, before all that waits behind it."""
    netuid = connection.scalar(select(relay_streams.c.netuid).where(relay_streams.c.id == entry.stream_id)) or 0
    marker = gap_payload(entry, netuid, reason, now)
    values = {
        "kind": GAP,
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
    if (
        statements.INSERT_ENTRY.change(connection, values | {"signed": None, "signed_hash": None, "block_hash": None})
        == 1
    ):
        change(connection, entry.stream_id, pending=relay_streams.c.pending + 1)
        add(connection, "pending", 1)
