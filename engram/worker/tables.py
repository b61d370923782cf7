"""Jobs with an id: from their acceptance until their result was acknowledged and its time is over."""

from sqlalchemy import Index, Integer, LargeBinary, Text, UniqueConstraint

from engram.ledger.sql import REAL, Column, Table, metadata

worker_jobs = Table(
    "worker_jobs",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("orchestrator", Text, nullable=False),  # its URL: ids of another one mean other jobs
    Column("id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("request_hash", LargeBinary, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # MessagePack; empty once it is done
    Column("state", Text, nullable=False),  # accepted | running | done
    Column("outcome", Text, nullable=False),  # done | failed | unknown
    Column("result", LargeBinary, nullable=False),  # MessagePack
    Column("created_at", REAL, nullable=False),
    Column("ended_at", REAL),
    Column("acknowledged_at", REAL),
    UniqueConstraint("orchestrator", "id"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
_columns = worker_jobs.c
Index("ix_worker_jobs_open", _columns.orchestrator, _columns.number, sqlite_where=_columns.ended_at.is_(None))
Index(
    "ix_worker_jobs_unacknowledged",
    _columns.orchestrator,
    _columns.number,
    sqlite_where=_columns.ended_at.is_not(None) & _columns.acknowledged_at.is_(None),
)
Index("ix_worker_jobs_over", _columns.ended_at)
