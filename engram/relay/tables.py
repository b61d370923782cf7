"""The relay's outbox (waiting, delivered and dead letters) and the log of its attempts."""

from sqlalchemy import Index, Integer, LargeBinary, Text, UniqueConstraint

from engram.ledger.sql import REAL, Column, Table, metadata

relay_outbox = Table(
    "relay_outbox",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),  # memory | scores
    Column("nonce", Text, nullable=False),
    Column("output_hash", Text, nullable=False),
    Column("block", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # JSON as it was learned
    Column("signed", LargeBinary),  # the same, signed before the first attempt; every attempt sends these bytes
    Column("signed_hash", Text),  # hex; the idempotency key
    Column("state", Text, nullable=False),  # pending | sending | delivered | abandoned | discarded
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", REAL, nullable=False),
    Column("last_reason", Text),
    Column("created_at", REAL, nullable=False),
    Column("updated_at", REAL, nullable=False),
    UniqueConstraint("kind", "nonce"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
Index("ix_relay_outbox_state", relay_outbox.c.state, relay_outbox.c.id)

relay_log = Table(
    "relay_log",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("outbox_id", Integer, nullable=False),
    Column("output_hash", Text, nullable=False),
    Column("block", Integer, nullable=False),
    Column("status", Text, nullable=False),  # ok | http_NNN | error (nothing was sent) | unknown (sent, no answer)
    Column("http_status", Integer),
    Column("at", REAL, nullable=False),
    sqlite_strict=True,
)
Index("ix_relay_log_outbox_id", relay_log.c.outbox_id, relay_log.c.id)
