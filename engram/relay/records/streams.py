"""The streams of the outbox, and the counters that make status and enqueueing cost the same however much is kept."""

from collections.abc import Mapping
from typing import Final

import msgspec
from sqlalchemy import Connection, select, update

from engram.relay.model import Entry, EntryState, Stream
from engram.relay.records import statements
from engram.relay.tables import relay_streams

COUNTER_OF: Final[Mapping[EntryState, str]] = {
    EntryState.PENDING: "pending",
    EntryState.SENDING: "pending",
    EntryState.ABANDONED: "parked",
    EntryState.DELIVERED: "delivered",
    EntryState.DISCARDED: "discarded",
    EntryState.WITHDRAWN: "withdrawn",
}
"""The counter of the entries that are kept in each state; one that is being sent still waits."""


class StreamRow(msgspec.Struct, frozen=True):
    """What queueing needs of a stream."""

    id: int
    next_seq: int


def stream_of(connection: Connection, netuid: int, kind: str, signer: str, now: float) -> StreamRow:
    """Return the stream, created when it is new."""
    key = {"netuid": netuid, "kind": kind, "signer": signer}
    found = statements.STREAM.values(connection, key)
    if found is None:
        statements.NEW_STREAM.apply(
            connection, key | {"next_seq": 1, "pending": 0, "parked": 0, "next_attempt_at": now}
        )
        found = statements.STREAM.values(connection, key)
        assert found is not None, "it was inserted a moment ago"
    return StreamRow(*found)


def change(connection: Connection, stream_id: int, **values: object) -> None:
    """Change columns of a stream."""
    connection.execute(update(relay_streams).where(relay_streams.c.id == stream_id).values(**values))


def left(connection: Connection, entry: Entry, now: float, **values: object) -> None:
    """Let the next entry of the stream go at once, since this one waits no longer."""
    values["pending"] = relay_streams.c.pending - 1
    change(connection, entry.stream_id, next_attempt_at=now, **values)


def bring_forward(connection: Connection, seconds: float) -> None:
    """Let all streams be due sooner by so many seconds."""
    connection.execute(update(relay_streams).values(next_attempt_at=relay_streams.c.next_attempt_at - seconds))


def end_long_waits(connection: Connection, now: float, most_s: float) -> None:
    """Let streams that would wait longer than `most_s` be due now: the wall clock was set back meanwhile."""
    connection.execute(
        update(relay_streams).where(relay_streams.c.next_attempt_at > now + most_s).values(next_attempt_at=now)
    )


def count(connection: Connection, name: str) -> int:
    """Return a counter: one of COUNTER_OF, or the attempts that were `ok` or `failed`."""
    found = statements.COUNT.values(connection, {"name": name})
    return 0 if found is None else int(found[0])


def add(connection: Connection, name: str, change: int) -> None:
    """Change a counter."""
    statements.ADD.apply(connection, {"name": name, "value": change})


def count_by_state(connection: Connection) -> dict[str, int]:
    """Return how many entries are kept in each state; one that is being sent counts as pending."""
    return {
        state.value: count(connection, name) for state, name in COUNTER_OF.items() if state is not EntryState.SENDING
    }


def stream_name(connection: Connection, stream_id: int) -> str:
    """Return a stream's name: subnet, signer (ss58) and kind."""
    columns = relay_streams.c
    row = connection.execute(select(columns.netuid, columns.signer, columns.kind).where(columns.id == stream_id)).one()
    return f"{row.netuid}/{row.signer}/{row.kind}"


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
