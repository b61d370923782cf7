"""How the relay stands, for operators. Each costs a few rows, however many entries are kept."""

import msgspec
from sqlalchemy import Connection, RowMapping, exists, func, literal, select

from engram.ledger.sql import one_of
from engram.relay.model import Entry, EntryState, LogLine, RelayStatus
from engram.relay.records.outbox import OVER, head
from engram.relay.records.rows import line_of
from engram.relay.records.streams import count, streams
from engram.relay.rules import ANCHORED_KINDS
from engram.relay.tables import relay_anchors, relay_log, relay_outbox, relay_streams, relay_unanchored

_WAITING = (EntryState.PENDING, EntryState.SENDING)


def heads(connection: Connection) -> list[Entry]:
    """Return the entry of each stream that is next, or under way."""
    found = (head(connection, stream.id, _WAITING) for stream in streams(connection) if stream.pending)
    return [entry for entry in found if entry is not None]


def status(
    connection: Connection,
    *,
    enabled: bool,
    failures_in_a_row: int,
    not_queued: int = 0,
    held_back: str = "",
    acknowledged_by: str = "",
    receiver_pinned: bool = False,
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
    reasons = connection.scalars(select(relay_unanchored.c.reason).order_by(relay_unanchored.c.signer))
    return RelayStatus(
        enabled=enabled,
        outbox_pending=count(connection, "pending"),
        dlq_pending=sum(entry.last_reason is not None for entry in waiting),
        dlq_abandoned=count(connection, "parked"),
        withdrawn=count(connection, "withdrawn"),
        discarded=count(connection, "discarded"),
        total_ok=count(connection, "ok"),
        total_failed=count(connection, "failed"),
        last_ok_hash=delivered.last_ok_hash if delivered else None,
        last_ok_at=delivered.last_ok_at if delivered else None,
        oldest_pending_at=min((entry.created_at for entry in waiting), default=None),
        failures_in_a_row=failures_in_a_row,
        not_queued=not_queued,
        held_back=held_back,
        acknowledged_by=acknowledged_by,
        receiver_pinned=receiver_pinned,
        not_anchored="; ".join(reasons),
        acknowledgement_lag_s=None if last is None else last.updated_at - last.created_at,
    )


def failures_in_a_row(connection: Connection) -> int:
    """Return how many attempts have failed since the last delivery, over restarts; costs a row for each."""
    last_ok = select(relay_log.c.id).where(relay_log.c.status == "ok").order_by(relay_log.c.id.desc()).limit(1)
    since = func.coalesce(last_ok.scalar_subquery(), 0)
    return connection.scalar(select(func.count()).where(relay_log.c.id > since)) or 0


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
    of_signer = (relay_unanchored.c.netuid == relay_streams.c.netuid) & (
        relay_unanchored.c.signer == relay_streams.c.signer
    )
    anchor, stream = relay_outbox.alias(), relay_streams.alias()
    is_delivered = (
        exists()
        .where(
            stream.c.netuid == relay_anchors.c.netuid,
            stream.c.signer == relay_anchors.c.signer,
            stream.c.kind == "anchor",
            anchor.c.stream_id == stream.c.id,
            anchor.c.state == EntryState.DELIVERED.value,
            anchor.c.block == relay_anchors.c.committed_block,
            anchor.c.nonce.like(literal("%:anchor.") + relay_outbox.c.kind + literal(":%")),
        )
        .label("is_delivered")
    )
    anchor_state = relay_anchors.c.state.label("anchor_state")
    query = (
        select(relay_log, relay_outbox.c.kind, anchor_state, is_delivered, relay_unanchored.c.reason)
        .outerjoin(relay_outbox, relay_outbox.c.id == relay_log.c.outbox_id)
        .outerjoin(relay_anchors, relay_anchors.c.id == relay_outbox.c.anchor_id)
        .outerjoin(relay_streams, relay_streams.c.id == relay_outbox.c.stream_id)
        .outerjoin(relay_unanchored, of_signer)
        .order_by(relay_log.c.id.desc())
        .limit(limit)
    )
    if before_id:
        query = query.where(relay_log.c.id < before_id)
    rows = connection.execute(query).mappings()
    return [msgspec.structs.replace(line_of(row), anchor=_anchor(row)) for row in rows]


def _anchor(row: RowMapping) -> str:
    """Return how what an attempt delivered stands to the chain; see LogLine.anchor."""
    if row["status"] != "ok" or row["kind"] not in ANCHORED_KINDS:
        return ""
    if row["anchor_state"] is not None:
        if row["anchor_state"] != "committed":
            return "committing"
        return "anchored" if row["is_delivered"] else "committed"
    return row["reason"] or "waiting"
