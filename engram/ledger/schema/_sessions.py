"""Compute sessions, what happened to them, the nodes that serve them and the node keys they lease."""

from sqlalchemy import Index, Integer, LargeBinary, Text

from engram.ledger.schema._base import REAL, Column, Table, metadata
from engram.ledger.sql import one_of

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
    sqlite_strict=True,
)
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

nodes = Table(
    "nodes",
    metadata,
    Column("token", Text, primary_key=True),  # begins with this ledger's id
    Column("session_id", Text, nullable=False),
    Column("backend", Text, nullable=False),
    Column("state", Text, nullable=False),  # launching | running | gone
    Column("port", Integer),  # held until the node is gone
    Column("reference", Text),  # JSON of the backend: pid and its start time, deployment, …
    Column("hotkey", LargeBinary),
    Column("created_at", REAL, nullable=False),
    Column("gone_at", REAL),
    sqlite_strict=True,
)
Index("ix_nodes_session", nodes.c.session_id)
Index("uq_nodes_live_port", nodes.c.port, unique=True, sqlite_where=nodes.c.state != "gone")

node_keys = Table(
    "node_keys",
    metadata,
    Column("public_key", LargeBinary, primary_key=True),
    Column("path", Text, nullable=False),  # wallet hotkey file, mode 0600
    Column("source", Text, nullable=False),  # added | generated
    Column("added_at", REAL, nullable=False),
    Column("retired_at", REAL),
    Column("session_id", Text),  # lease
    Column("leased_at", REAL),
    sqlite_strict=True,
)
Index(
    "uq_node_keys_session",
    node_keys.c.session_id,
    unique=True,
    sqlite_where=node_keys.c.session_id.is_not(None),
)
