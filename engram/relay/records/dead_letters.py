"""Entries that were abandoned, or are by the operator. Only the operator's commands touch them."""

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, and_, select

from engram.relay.errors import NotAbandoned
from engram.relay.model import Entry, EntryState, LogLine
from engram.relay.records.outbox import park
from engram.relay.records.rows import entry_by_id, entry_of, line_of, move
from engram.relay.records.streams import change
from engram.relay.tables import relay_log, relay_outbox, relay_streams

PARKED_BY_OPERATOR: Final = "parked by the operator"


def dlq_list(connection: Connection, limit: int = 100, after_id: int = 0) -> list[Entry]:
    """Dead letters, oldest first: a page of at most `limit` with ids above `after_id`."""
    rows = connection.execute(
        select(relay_outbox)
        .where(and_(relay_outbox.c.state == EntryState.ABANDONED, relay_outbox.c.id > after_id))
        .order_by(relay_outbox.c.id)
        .limit(limit)
    ).mappings()
    return [entry_of(row) for row in rows]


def dlq_show(connection: Connection, entry_id: int) -> tuple[Entry, list[LogLine]]:
    """Return an entry in whatever state, and its latest 100 attempts, oldest first. Raises NoSuchEntry."""
    entry = entry_by_id(connection, entry_id)
    rows = connection.execute(
        select(relay_log).where(relay_log.c.outbox_id == entry_id).order_by(relay_log.c.id.desc()).limit(100)
    ).mappings()
    return entry, [line_of(row) for row in rows][::-1]


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


def dlq_park(connection: Connection, entry_id: int, now: float) -> None:
    """Park an entry that waits, behind a gap marker. Raises NoSuchEntry or NotWaiting."""
    park(connection, entry_by_id(connection, entry_id), PARKED_BY_OPERATOR, now)


def dlq_discard(connection: Connection, entry_id: int, now: float) -> None:
    """Give a dead letter up; it is forgotten after 7 days. Raises NoSuchEntry or NotAbandoned."""
    _leave_dlq(connection, entry_id, EntryState.DISCARDED, now)


def _leave_dlq(connection: Connection, entry_id: int, to: EntryState, now: float) -> None:
    entry = entry_by_id(connection, entry_id)
    left = msgspec.structs.replace(entry, state=to, attempts=0, next_attempt_at=now, updated_at=now)
    if not move(connection, left, EntryState.ABANDONED):
        raise NotAbandoned(entry_id, entry.state.value)
    back = 1 if to is EntryState.PENDING else 0
    change(
        connection,
        entry.stream_id,
        parked=relay_streams.c.parked - 1,
        pending=relay_streams.c.pending + back,
        next_attempt_at=now,
    )
