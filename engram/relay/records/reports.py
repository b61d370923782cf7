"""How the relay stands, for operators. Each costs a few rows, however many entries are kept."""

from sqlalchemy import Connection, select

from engram.ledger.sql import one_of
from engram.relay.model import Entry, EntryState, LogLine, RelayStatus
from engram.relay.records.outbox import OVER, head
from engram.relay.records.rows import line_of
from engram.relay.records.streams import count, streams
from engram.relay.tables import relay_log, relay_outbox

_WAITING = (EntryState.PENDING, EntryState.SENDING)


def heads(connection: Connection) -> list[Entry]:
    """Return the entry of each stream that is next, or under way."""
    found = (head(connection, stream.id, _WAITING) for stream in streams(connection) if stream.pending)
    return [entry for entry in found if entry is not None]


def status(
    connection: Connection, *, enabled: bool, failures_in_a_row: int, not_queued: int = 0, held_back: str = ""
) -> RelayStatus:
    """Return how the relay stands. Costs a few rows, however many entries wait."""
    waiting = heads(connection)
    delivered = max(streams(connection), key=lambda stream: stream.last_ok_at or 0.0, default=None)
    newest = (
        select(relay_outbox.c.created_at, relay_outbox.c.updated_at)
        .where(one_of(relay_outbox.c.state, OVER), relay_outbox.c.state == EntryState.DELIVERED)  # by the index of OVER
        .order_by(relay_outbox.c.updated_at.desc())
        .limit(1)
    )
    last = connection.execute(newest).first()
    return RelayStatus(
        enabled=enabled,
        outbox_pending=count(connection, "pending"),
        dlq_pending=sum(entry.last_reason is not None for entry in waiting),
        dlq_abandoned=count(connection, "parked"),
        withdrawn=count(connection, "withdrawn"),
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


def oldest(connection: Connection) -> dict[str, float]:
    """Return when the oldest waiting entry and the oldest dead letter were queued (unix seconds), by state.

    Within a stream the first entry is the oldest.
    """
    dead = (head(connection, stream.id, (EntryState.ABANDONED,)) for stream in streams(connection) if stream.parked)
    found = {
        EntryState.PENDING: [entry.created_at for entry in heads(connection)],
        EntryState.ABANDONED: [entry.created_at for entry in dead if entry is not None],
    }
    return {state.value: min(times) for state, times in found.items() if times}


def log_lines(connection: Connection, limit: int, before_id: int = 0) -> list[LogLine]:
    """Return the newest attempts, newest first; with `before_id` those older than it."""
    query = select(relay_log).order_by(relay_log.c.id.desc()).limit(limit)
    if before_id:
        query = query.where(relay_log.c.id < before_id)
    return [line_of(row) for row in connection.execute(query).mappings()]
