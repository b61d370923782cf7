-- Jobs that an orchestrator sent to a worker, and their results until they are acknowledged and old.

CREATE TABLE worker_jobs (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    orchestrator TEXT NOT NULL,
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    request_hash BLOB NOT NULL,
    payload BLOB NOT NULL,
    state TEXT NOT NULL,
    outcome TEXT NOT NULL,
    result BLOB NOT NULL,
    created_at REAL NOT NULL,
    ended_at REAL,
    acknowledged_at REAL,
    CONSTRAINT uq_worker_jobs_orchestrator UNIQUE (orchestrator, id)
) STRICT;
CREATE INDEX ix_worker_jobs_open ON worker_jobs (orchestrator, number) WHERE ended_at IS NULL;
CREATE INDEX ix_worker_jobs_over ON worker_jobs (ended_at);
CREATE INDEX ix_worker_jobs_unacknowledged ON worker_jobs (orchestrator, number) WHERE ended_at IS NOT NULL AND acknowledged_at IS NULL;
