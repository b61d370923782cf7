"""Rows of the outbox and its log to entries, and back."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from engram.relay.errors import NoSuchEntry
from engram.relay.model import Entry, EntryState, LogLine
from engram.relay.records import statements
from engram.relay.records.streams import COUNTER_OF, add
from engram.relay.tables import relay_outbox


def move(connection: Connection, entry: Entry, leaves: EntryState) -> bool:
    """Write an entry that leaves a state, and count it; False when it is in another state by now."""
    done = statements.MOVE_ENTRY.change(
        connection,
        {
            "entry": entry.id,
            "leaves": leaves.value,
            "output_hash": entry.output_hash,
            "signed": entry.signed,
            "signed_hash": entry.signed_hash,
            "state": entry.state.value,
            "attempts": entry.attempts,
            "next_attempt_at": entry.next_attempt_at,
            "last_reason": entry.last_reason,
            "updated_at": entry.updated_at,
        },
    )
    if done != 1:
        return False
    if COUNTER_OF[leaves] != COUNTER_OF[entry.state]:
        add(connection, COUNTER_OF[leaves], -1)
        add(connection, COUNTER_OF[entry.state], 1)
    return True


def entry_by_id(connection: Connection, entry_id: int) -> Entry:
    """Return an entry in whatever state. Raises NoSuchEntry."""
    row = connection.execute(select(relay_outbox).where(relay_outbox.c.id == entry_id)).mappings().first()
    if row is None:
        raise NoSuchEntry(entry_id)
    return entry_of(row)


def entry_of(row: Mapping[Any, Any]) -> Entry:
    """Return the entry of a row."""
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


def line_of(row: Mapping[Any, Any]) -> LogLine:
    """Return the line of a row of the log."""
    return LogLine(row["outbox_id"], row["output_hash"], row["block"], row["status"], row["http_status"], row["at"])
