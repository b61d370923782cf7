"""Deployments on Akash, the transactions that made them, what providers did, and minted ACT.

Prices are picoACT a block, amounts uact or uakt.
"""

from sqlalchemy import Index, Integer, LargeBinary, Text

from engram.ledger.sql import REAL, Column, Table, metadata

deployments = Table(
    "akash_deployments",
    metadata,
    Column("dseq", Integer, primary_key=True),
    Column("token", Text, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),  # of the sorted manifest; what the chain knows it by
    Column("manifest", LargeBinary, nullable=False),  # JSON, sent unchanged
    Column("wide", Integer, nullable=False),
    Column("ceiling", Integer, nullable=False),
    Column("deposit_uact", Integer, nullable=False),
    Column("created_at", REAL, nullable=False),
    Column("state_since", REAL, nullable=False),
    Column("ends_at", REAL, nullable=False),
    Column("gseq", Integer, nullable=False),
    Column("oseq", Integer, nullable=False),
    Column("bseq", Integer, nullable=False),
    Column("provider", Text),
    Column("price", Integer),
    Column("excluded", Text, nullable=False),  # JSON list of providers
    Column("endpoint", Text),
    Column("tries", Integer, nullable=False),
    Column("reason", Text),
    Column("stopped_at", REAL),
    Column("restarts", Integer, nullable=False),
    Column("lost_at", REAL),
    Column("reclaim_at", REAL),
    Column("logs", Text, nullable=False),
    Column("closed_at", REAL),
    Column("cost_uact", Integer),
    sqlite_strict=True,
)
# One deployment of a node at a time: the second one is refused by the database, whatever the program thinks.
Index(
    "uq_akash_deployments_live_token",
    deployments.c.token,
    unique=True,
    sqlite_where=deployments.c.state != "closed",
)
Index("uq_akash_deployments_hash", deployments.c.hash, unique=True)
Index("ix_akash_deployments_token", deployments.c.token, deployments.c.dseq)
Index("ix_akash_deployments_closed", deployments.c.closed_at, sqlite_where=deployments.c.state == "closed")

transactions = Table(
    "akash_transactions",
    metadata,
    Column("hash", LargeBinary, primary_key=True),  # SHA-256 of the bytes
    Column("subject", Text, nullable=False),  # create | lease | close | deposit | mint
    Column("dseq", Integer),
    Column("raw", LargeBinary, nullable=False),  # TxRaw, sent unchanged
    Column("timeout_ns", Integer, nullable=False, unique=True),  # block time from which it is certain not to come
    Column("timeout_height", Integer),  # of an ordered one
    Column("sequence", Integer),  # of an ordered one
    Column("state", Text, nullable=False),  # open | included | refused | expired
    Column("code", Integer),
    Column("codespace", Text),
    Column("log", Text),
    Column("height", Integer),
    Column("gas_limit", Integer, nullable=False),
    Column("gas_used", Integer),
    Column("fee_uakt", Integer, nullable=False),
    Column("amount_uact", Integer, nullable=False),  # deposited or minted by it
    Column("created_at", REAL, nullable=False),
    Column("settled_at", REAL),
    sqlite_strict=True,
)
Index("ix_akash_transactions_dseq", transactions.c.dseq, transactions.c.created_at)
Index("ix_akash_transactions_open", transactions.c.created_at, sqlite_where=transactions.c.state == "open")

providers = Table(
    "akash_providers",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("strikes", REAL, nullable=False),
    Column("struck_at", REAL, nullable=False),
    Column("successes", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("last_failure", Text, nullable=False),
    Column("blacklisted_until", REAL, nullable=False),
    sqlite_strict=True,
)

mints = Table(
    "akash_mints",
    metadata,
    Column("hash", LargeBinary, primary_key=True),  # of the transaction
    Column("burn_uakt", Integer, nullable=False),
    Column("record", Text),  # the chain's own id of it
    Column("state", Text, nullable=False),  # sent | pending | executed | canceled | refused
    Column("created_at", REAL, nullable=False),
    Column("settled_at", REAL),
    sqlite_strict=True,
)
