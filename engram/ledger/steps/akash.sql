-- Deployments on Akash, their transactions, what providers did, and minted ACT.

CREATE TABLE akash_deployments (
    dseq INTEGER NOT NULL,
    token TEXT NOT NULL,
    session_id TEXT NOT NULL,
    state TEXT NOT NULL,
    hash BLOB NOT NULL,
    manifest BLOB NOT NULL,
    wide INTEGER NOT NULL,
    ceiling INTEGER NOT NULL,
    deposit_uact INTEGER NOT NULL,
    created_at REAL NOT NULL,
    state_since REAL NOT NULL,
    ends_at REAL NOT NULL,
    gseq INTEGER NOT NULL,
    oseq INTEGER NOT NULL,
    bseq INTEGER NOT NULL,
    provider TEXT,
    price INTEGER,
    excluded TEXT NOT NULL,
    endpoint TEXT,
    tries INTEGER NOT NULL,
    reason TEXT,
    stopped_at REAL,
    restarts INTEGER NOT NULL,
    lost_at REAL,
    reclaim_at REAL,
    logs TEXT NOT NULL,
    closed_at REAL,
    cost_uact INTEGER,
    CONSTRAINT pk_akash_deployments PRIMARY KEY (dseq)
) STRICT;
CREATE INDEX ix_akash_deployments_closed ON akash_deployments (closed_at) WHERE state = 'closed';
CREATE INDEX ix_akash_deployments_token ON akash_deployments (token, dseq);
CREATE UNIQUE INDEX uq_akash_deployments_hash ON akash_deployments (hash);
CREATE UNIQUE INDEX uq_akash_deployments_live_token ON akash_deployments (token) WHERE state != 'closed';
CREATE TABLE akash_transactions (
    hash BLOB NOT NULL,
    subject TEXT NOT NULL,
    dseq INTEGER,
    raw BLOB NOT NULL,
    timeout_ns INTEGER NOT NULL,
    timeout_height INTEGER,
    sequence INTEGER,
    state TEXT NOT NULL,
    code INTEGER,
    codespace TEXT,
    log TEXT,
    height INTEGER,
    gas_limit INTEGER NOT NULL,
    gas_used INTEGER,
    fee_uakt INTEGER NOT NULL,
    amount_uact INTEGER NOT NULL,
    created_at REAL NOT NULL,
    settled_at REAL,
    CONSTRAINT pk_akash_transactions PRIMARY KEY (hash),
    CONSTRAINT uq_akash_transactions_timeout_ns UNIQUE (timeout_ns)
) STRICT;
CREATE INDEX ix_akash_transactions_dseq ON akash_transactions (dseq, created_at);
CREATE INDEX ix_akash_transactions_open ON akash_transactions (created_at) WHERE state = 'open';
CREATE TABLE akash_providers (
    provider TEXT NOT NULL,
    strikes REAL NOT NULL,
    struck_at REAL NOT NULL,
    successes INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    last_failure TEXT NOT NULL,
    blacklisted_until REAL NOT NULL,
    CONSTRAINT pk_akash_providers PRIMARY KEY (provider)
) STRICT;
CREATE TABLE akash_mints (
    hash BLOB NOT NULL,
    burn_uakt INTEGER NOT NULL,
    record TEXT,
    state TEXT NOT NULL,
    created_at REAL NOT NULL,
    settled_at REAL,
    CONSTRAINT pk_akash_mints PRIMARY KEY (hash)
) STRICT;
