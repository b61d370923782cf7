-- Requests to the proxy's backends that outlive their first answer, and their results until they are fetched.

CREATE TABLE proxy_jobs (
    id TEXT NOT NULL,
    owner BLOB NOT NULL,
    idempotency_key TEXT,
    request_hash BLOB NOT NULL,
    state TEXT NOT NULL,
    route TEXT NOT NULL,
    created_at REAL NOT NULL,
    ended_at REAL,
    fetched_at REAL,
    status INTEGER NOT NULL,
    headers BLOB NOT NULL,
    body BLOB NOT NULL,
    code TEXT NOT NULL,
    CONSTRAINT pk_proxy_jobs PRIMARY KEY (id)
) STRICT;
CREATE INDEX ix_proxy_jobs_created ON proxy_jobs (created_at);
CREATE UNIQUE INDEX ix_proxy_jobs_idempotency ON proxy_jobs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX ix_proxy_jobs_running ON proxy_jobs (created_at) WHERE state = 'running';
