"""The nodes that serve sessions, and the node keys that they lease."""

from sqlalchemy import Index, Integer, LargeBinary, Text

from engram.ledger.sql import OWNER, REAL, Column, Table, metadata, owner_column

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
    owner_column(),
    info={"open": "state <> 'gone'"},
    sqlite_strict=True,
)
NODE = [column for column in nodes.c if column.name != OWNER]
"""What a node is, without who works it."""
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

node_session_keys = Table(
    "node_session_keys",
    metadata,
    Column("token", Text, primary_key=True),  # the launch
    Column("number", Integer, primary_key=True),  # 0 is its first key
    Column("session_key", LargeBinary, nullable=False),
    Column("box_key", LargeBinary, nullable=False),
    Column("shown_at", REAL, nullable=False),
    Column("certified_until", REAL, nullable=False),
    sqlite_strict=True,
)
Index("uq_node_session_keys_key", node_session_keys.c.session_key, unique=True)
