"""The play-money facilitator's books."""

from sqlalchemy import Integer, LargeBinary, PrimaryKeyConstraint, Text

from engram.ledger.sql import REAL, Column, Table, metadata

play_accounts = Table(
    "play_accounts",
    metadata,
    Column("address", LargeBinary, primary_key=True),
    Column("balance", Integer, nullable=False),  # atomic units
    sqlite_strict=True,
)

play_authorizations = Table(
    "play_authorizations",
    metadata,
    Column("payer", LargeBinary, nullable=False),
    Column("nonce", LargeBinary, nullable=False),
    Column("pay_to", LargeBinary, nullable=False),
    Column("amount", Integer, nullable=False),
    Column("transaction_hash", Text, nullable=False),
    Column("at", REAL, nullable=False),
    PrimaryKeyConstraint("payer", "nonce"),
    sqlite_strict=True,
)
