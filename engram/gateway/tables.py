"""What a gateway remembers of tickets (tickets.py), and of identities that move to another device (transfers.py)."""

from sqlalchemy import Index, Integer, LargeBinary, Text

from engram.ledger.sql import REAL, Column, Table, metadata

ticket_requests = Table(
    "ticket_requests",
    metadata,
    Column("request", LargeBinary, primary_key=True),  # public key and sha256 of what was signed
    Column("forget_at", REAL, nullable=False),
    sqlite_strict=True,
)
Index(None, ticket_requests.c.forget_at)

ticket_lineages = Table(
    "ticket_lineages",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),  # drawn at random
    Column("session_id", Text, nullable=False),
    Column("opened", Integer, nullable=False),  # the newest generation that opened a stream
    Column("openings", Integer, nullable=False),
    Column("opened_at", REAL, nullable=False),  # last
    sqlite_strict=True,
)
Index(None, ticket_lineages.c.session_id, ticket_lineages.c.opened_at)
Index(None, ticket_lineages.c.opened_at)

identity_transfers = Table(
    "identity_transfers",
    metadata,
    Column("id", LargeBinary, primary_key=True),  # follows from the code
    Column("controller", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("expires_at", REAL, nullable=False),
    sqlite_strict=True,
)
Index("uq_identity_transfers_controller", identity_transfers.c.controller, unique=True)
Index(None, identity_transfers.c.expires_at)
