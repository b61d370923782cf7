"""The proxy's jobs."""

from sqlalchemy import Index, Integer, LargeBinary, Text, literal_column

from engram.ledger.sql import REAL, Column, Table, metadata

proxy_jobs = Table(
    "proxy_jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", LargeBinary, nullable=False),  # public key of the poster
    Column("idempotency_key", Text),
    Column("request_hash", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("created_at", REAL, nullable=False),
    Column("ended_at", REAL),
    Column("fetched_at", REAL),
    Column("status", Integer, nullable=False),
    Column("headers", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("code", Text, nullable=False),
    sqlite_strict=True,
)

Index(
    "ix_proxy_jobs_idempotency",
    proxy_jobs.c.owner,
    proxy_jobs.c.idempotency_key,
    unique=True,
    sqlite_where=proxy_jobs.c.idempotency_key.is_not(None),
)
Index("ix_proxy_jobs_created", proxy_jobs.c.created_at)
Index("ix_proxy_jobs_running", proxy_jobs.c.created_at, sqlite_where=proxy_jobs.c.state == literal_column("'running'"))
