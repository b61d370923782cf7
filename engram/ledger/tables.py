"""Facts about the ledger itself and switches the operator set: `ledger_id`, `environment`, `selling`."""

from sqlalchemy import Text

from engram.ledger.sql import Column, Table, metadata

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_strict=True,
)
