-- Validators sign one another's scores: what may be relayed of our own, what left, and what was refused.

CREATE TABLE relay_candidates (
    netuid INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    block INTEGER NOT NULL,
    block_hash BLOB NOT NULL,
    nonce TEXT NOT NULL,
    output_hash TEXT NOT NULL,
    payload BLOB NOT NULL,
    signed BLOB,
    signed_hash TEXT,
    cosignatures TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    CONSTRAINT pk_relay_candidates PRIMARY KEY (netuid, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE relay_bundles (
    netuid INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    block INTEGER NOT NULL,
    proposer TEXT NOT NULL,
    output_hash TEXT NOT NULL,
    signed_hash TEXT NOT NULL,
    signers INTEGER NOT NULL,
    at REAL NOT NULL,
    CONSTRAINT pk_relay_bundles PRIMARY KEY (netuid, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE relay_evidence (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    netuid INTEGER NOT NULL,
    block INTEGER NOT NULL,
    proposer TEXT NOT NULL,
    judge TEXT NOT NULL,
    verdict TEXT NOT NULL,
    reason TEXT NOT NULL,
    differences TEXT NOT NULL,
    output_hash TEXT NOT NULL,
    document BLOB NOT NULL,
    CONSTRAINT uq_relay_evidence_proposer UNIQUE (proposer, judge, output_hash, verdict)
) STRICT;
CREATE INDEX ix_relay_evidence_at ON relay_evidence (at);
