"""The SQL that every payload runs, built once and prepared: most of its time was spent in building it."""

from typing import Final

from sqlalchemy import ColumnElement, bindparam, exists, insert, literal_column, or_, select, update

from engram.ledger import Prepared
from engram.ledger.sql import upsert
from engram.relay.rules import RETRY_AFTER_MAX_S
from engram.relay.tables import relay_counts, relay_log, relay_outbox, relay_signatures, relay_streams

FURTHEST_S = 2 * RETRY_AFTER_MAX_S
"""No attempt is ever planned further ahead: one that seems to be was planned before the wall clock went back."""

_ONE: Final[ColumnElement[int]] = literal_column("1")
_NONE: Final[ColumnElement[int]] = literal_column("0")
"""Without an offset SQLAlchemy adds one of its own, as a parameter."""
_added = upsert(relay_counts)
COUNT = Prepared(select(relay_counts.c.value).where(relay_counts.c.name == bindparam("name")))
ADD = Prepared(
    _added.on_conflict_do_update(index_elements=["name"], set_={"value": relay_counts.c.value + _added.excluded.value}),
    ["name", "value"],
)
STREAM = Prepared(
    select(relay_streams.c.id, relay_streams.c.next_seq).where(
        relay_streams.c.netuid == bindparam("netuid"),
        relay_streams.c.kind == bindparam("kind"),
        relay_streams.c.signer == bindparam("signer"),
    )
)
NEW_STREAM = Prepared(
    insert(relay_streams), ["netuid", "kind", "signer", "next_seq", "pending", "parked", "next_attempt_at"]
)
STREAM_GREW = Prepared(
    update(relay_streams)
    .where(relay_streams.c.id == bindparam("stream"))
    .values(next_seq=relay_streams.c.next_seq + _ONE, pending=relay_streams.c.pending + _ONE)
)
STREAM_DELIVERED = Prepared(
    update(relay_streams)
    .where(relay_streams.c.id == bindparam("stream"))
    .values(
        pending=relay_streams.c.pending - _ONE,
        next_attempt_at=bindparam("now"),
        last_ok_at=bindparam("now"),
        last_ok_hash=bindparam("hash"),
    )
)
ENTRY_COLUMNS = (
    "kind",
    "nonce",
    "output_hash",
    "block",
    "payload",
    "signed",
    "signed_hash",
    "state",
    "attempts",
    "next_attempt_at",
    "created_at",
    "updated_at",
    "stream_id",
    "seq",
    "block_hash",
    "signed",
    "signed_hash",
)
INSERT_ENTRY = Prepared(upsert(relay_outbox).on_conflict_do_nothing(), ENTRY_COLUMNS)
MOVE_ENTRY = Prepared(
    update(relay_outbox)
    .where(relay_outbox.c.id == bindparam("entry"), relay_outbox.c.state == bindparam("leaves"))
    .values(
        output_hash=bindparam("output_hash"),
        signed=bindparam("signed"),
        signed_hash=bindparam("signed_hash"),
        state=bindparam("state"),
        attempts=bindparam("attempts"),
        next_attempt_at=bindparam("next_attempt_at"),
        last_reason=bindparam("last_reason"),
        updated_at=bindparam("updated_at"),
    )
)
LOG = Prepared(insert(relay_log), ["outbox_id", "output_hash", "block", "status", "http_status", "at"])
INTENT = Prepared(upsert(relay_signatures).on_conflict_do_nothing())
HELD = Prepared(
    select(relay_signatures.c.output_hash).where(
        relay_signatures.c.netuid == bindparam("netuid"),
        relay_signatures.c.kind == bindparam("kind"),
        relay_signatures.c.block == bindparam("block"),
        relay_signatures.c.source == bindparam("source"),
        relay_signatures.c.signer == bindparam("signer"),
    )
)
STREAM_KEY = Prepared(
    select(relay_streams.c.netuid, relay_streams.c.signer).where(relay_streams.c.id == bindparam("stream"))
)
_under_way = exists().where(
    relay_outbox.c.stream_id == relay_streams.c.id, relay_outbox.c.state == literal_column("'sending'")
)
_waits = relay_streams.c.pending > literal_column("0")
DUE_STREAMS = Prepared(
    select(relay_streams.c.id)
    .where(
        _waits,
        or_(
            relay_streams.c.next_attempt_at <= bindparam("now"),
            relay_streams.c.next_attempt_at > bindparam("furthest"),
        ),
        ~_under_way,
    )
    .order_by(relay_streams.c.next_attempt_at, relay_streams.c.id)
    .limit(bindparam("most"))
    .offset(_NONE)
)
"""Those without an entry under way, longest waiting first."""
NEXT_ATTEMPT = Prepared(
    select(relay_streams.c.next_attempt_at)
    .where(_waits, ~_under_way)
    .order_by(relay_streams.c.next_attempt_at)
    .limit(_ONE)
    .offset(_NONE)
)
HEAD = Prepared(
    select(relay_outbox)
    .where(relay_outbox.c.stream_id == bindparam("stream"), relay_outbox.c.state == bindparam("state"))
    .order_by(relay_outbox.c.seq, relay_outbox.c.id)
    .limit(_ONE)
    .offset(_NONE)
)
