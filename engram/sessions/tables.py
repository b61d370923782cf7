"""Compute sessions, what happened to them, how many are in which state, and the clock of paid time."""

from sqlalchemy import Index, Integer, LargeBinary, Text

from engram.ledger.sql import OWNER, REAL, Column, Table, metadata, one_of, owner_column

sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("controller", LargeBinary, nullable=False),  # 32-byte sr25519 public key
    Column("state", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("paid_s", REAL, nullable=False),  # seconds bought so far, extensions included
    Column("amount_usd_micros", Integer, nullable=False),
    Column("network", Text, nullable=False),
    Column("payment_id", Text, nullable=False),
    Column("created_at", REAL, nullable=False),
    Column("active_at", REAL),
    Column("ended_at", REAL),
    Column("end_reason", Text),  # why it is stopping, or ended
    Column("error", Text),
    # Paid time used up, and what the paid clock read then; null while none runs.
    Column("used_s", REAL, nullable=False, server_default="0"),
    Column("counted_from", REAL),
    Column("pending_extensions", Integer, nullable=False, server_default="0"),
    # The node that serves it.
    Column("node_token", Text),
    Column("node_endpoint", Text),
    Column("node_hotkey", LargeBinary),
    Column("launch_attempts", Integer, nullable=False, server_default="0"),
    Column("crashes", Integer, nullable=False, server_default="0"),
    Column("quarantined_at", REAL),
    Column("node_store", Text),  # what holds the node's memory
    Column("emptied_at", REAL),  # another one took its place
    Column("restored_at", REAL),  # the controller says that it put back what was lost then
    owner_column(),
    info={"open": "ended_at IS NULL"},
    sqlite_strict=True,
)
SESSION = [column for column in sessions.c if column.name != OWNER]
"""What a session is, without who works it."""
Index("ix_sessions_controller", sessions.c.controller, sessions.c.created_at)
Index("ix_sessions_state", sessions.c.state)
Index(
    "ix_sessions_live",
    sessions.c.controller,
    sqlite_where=one_of(sessions.c.state, ("active", "degraded", "payment_pending", "provisioning")),
)
Index(
    "ix_sessions_ends",
    sessions.c.counted_from + sessions.c.paid_s - sessions.c.used_s,
    sqlite_where=sessions.c.counted_from.is_not(None),
)

paid_clock = Table(
    "paid_clock",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("reads_s", REAL, nullable=False),
    # The instant at which it read that.
    Column("wall", REAL, nullable=False),
    Column("monotonic", REAL, nullable=False),
    Column("boot", Text, nullable=False),
    sqlite_strict=True,
)

session_counts = Table(
    "session_counts",
    metadata,
    Column("state", Text, primary_key=True),
    Column("sessions", Integer, nullable=False),
    sqlite_strict=True,
)

session_events = Table(
    "session_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("session_id", Text, nullable=False),
    Column("at", REAL, nullable=False),
    Column("event", Text, nullable=False),
    Column("data", Text, nullable=False),  # JSON
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
Index("ix_session_events_session", session_events.c.session_id, session_events.c.id)
