"""Facts about the ledger itself, switches the operator set, and what its gateways share: `ledger_id`, `environment`,
`selling`, `ticket_secret`; and who does what only one process may do."""

from sqlalchemy import Integer, Text

from engram.ledger.sql import Column, Table, metadata

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_strict=True,
)

singletons = Table(
    "singletons",
    metadata,
    Column("role", Text, primary_key=True),
    Column("owner_epoch", Integer, nullable=False),
    sqlite_strict=True,
)
