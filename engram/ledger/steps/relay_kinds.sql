-- Rankings are co-signed beside scores; a nonce is unique within its stream, and for a receiver within its subnet;
-- who cannot anchor what it relays says why.

ALTER TABLE relay_candidates RENAME TO former_candidates;
CREATE TABLE relay_candidates (
    netuid INTEGER NOT NULL,
    kind TEXT NOT NULL,
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
    CONSTRAINT pk_relay_candidates PRIMARY KEY (netuid, kind, epoch)
) STRICT, WITHOUT ROWID;
INSERT INTO relay_candidates
SELECT netuid, 'scores', epoch, block, block_hash, nonce, output_hash, payload, signed, signed_hash, cosignatures, state,
       reason, created_at, updated_at
FROM former_candidates;
DROP TABLE former_candidates;
ALTER TABLE relay_bundles RENAME TO former_bundles;
CREATE TABLE relay_bundles (
    netuid INTEGER NOT NULL,
    kind TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    block INTEGER NOT NULL,
    proposer TEXT NOT NULL,
    output_hash TEXT NOT NULL,
    signed_hash TEXT NOT NULL,
    signers INTEGER NOT NULL,
    at REAL NOT NULL,
    CONSTRAINT pk_relay_bundles PRIMARY KEY (netuid, kind, epoch)
) STRICT, WITHOUT ROWID;
INSERT INTO relay_bundles
SELECT netuid, 'scores', epoch, block, proposer, output_hash, signed_hash, signers, at FROM former_bundles;
DROP TABLE former_bundles;
ALTER TABLE relay_evidence ADD COLUMN kind TEXT NOT NULL DEFAULT 'scores';
DROP INDEX ix_relay_outbox_stream;
DROP INDEX ix_relay_outbox_over;
ALTER TABLE relay_outbox RENAME TO former_outbox;
CREATE TABLE relay_outbox (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    nonce TEXT NOT NULL,
    output_hash TEXT NOT NULL,
    block INTEGER NOT NULL,
    payload BLOB NOT NULL,
    signed BLOB,
    signed_hash TEXT,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT '0',
    next_attempt_at REAL NOT NULL,
    last_reason TEXT,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    stream_id INTEGER NOT NULL DEFAULT '0',
    seq INTEGER NOT NULL DEFAULT '0',
    block_hash BLOB,
    anchor_id INTEGER,
    CONSTRAINT uq_relay_outbox_stream_id UNIQUE (stream_id, kind, nonce)
) STRICT;
INSERT INTO relay_outbox
SELECT id, kind, nonce, output_hash, block, payload, signed, signed_hash, state, attempts, next_attempt_at, last_reason,
       created_at, updated_at, stream_id, seq, block_hash, anchor_id
FROM former_outbox;
DELETE FROM sqlite_sequence WHERE name = 'relay_outbox';
INSERT INTO sqlite_sequence (name, seq) SELECT 'relay_outbox', seq FROM sqlite_sequence WHERE name = 'former_outbox';
DROP TABLE former_outbox;
CREATE INDEX ix_relay_outbox_stream ON relay_outbox (stream_id, state, seq);
CREATE INDEX ix_relay_outbox_over ON relay_outbox (updated_at) WHERE state IN ('delivered', 'discarded', 'withdrawn');
DROP INDEX ix_xeris_accepted_newest;
DROP INDEX ix_xeris_accepted_received;
DROP INDEX ix_xeris_accepted_signer;
DROP INDEX ix_xeris_accepted_hash;
DROP INDEX ix_xeris_accepted_unanchored;
DROP INDEX ix_xeris_accepted_overdue;
ALTER TABLE xeris_accepted RENAME TO former_accepted;
CREATE TABLE xeris_accepted (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    nonce TEXT NOT NULL,
    netuid INTEGER NOT NULL,
    block INTEGER NOT NULL,
    source TEXT NOT NULL,
    signer BLOB NOT NULL,
    signers INTEGER NOT NULL,
    output_hash TEXT NOT NULL,
    signed_hash TEXT NOT NULL,
    round_ts REAL NOT NULL,
    document BLOB NOT NULL,
    acknowledgement BLOB NOT NULL,
    received_at REAL NOT NULL,
    anchor_id INTEGER,
    leaf INTEGER,
    overdue INTEGER NOT NULL DEFAULT '0',
    CONSTRAINT uq_xeris_accepted_netuid UNIQUE (netuid, kind, nonce, signer)
) STRICT;
INSERT INTO xeris_accepted
SELECT id, kind, nonce, netuid, block, source, signer, signers, output_hash, signed_hash, round_ts, document,
       acknowledgement, received_at, anchor_id, leaf, overdue
FROM former_accepted;
DELETE FROM sqlite_sequence WHERE name = 'xeris_accepted';
INSERT INTO sqlite_sequence (name, seq) SELECT 'xeris_accepted', seq FROM sqlite_sequence WHERE name = 'former_accepted';
DROP TABLE former_accepted;
CREATE INDEX ix_xeris_accepted_newest ON xeris_accepted (netuid, kind, id);
CREATE INDEX ix_xeris_accepted_received ON xeris_accepted (received_at);
CREATE INDEX ix_xeris_accepted_signer ON xeris_accepted (signer, netuid, kind, block);
CREATE INDEX ix_xeris_accepted_hash ON xeris_accepted (signed_hash);
CREATE INDEX ix_xeris_accepted_unanchored ON xeris_accepted (netuid, block) WHERE anchor_id IS NULL AND overdue = 0;
CREATE INDEX ix_xeris_accepted_overdue ON xeris_accepted (kind) WHERE anchor_id IS NULL AND overdue = 1;
CREATE TABLE relay_unanchored (
    netuid INTEGER NOT NULL,
    signer TEXT NOT NULL,
    reason TEXT NOT NULL,
    at REAL NOT NULL,
    CONSTRAINT pk_relay_unanchored PRIMARY KEY (netuid, signer)
) STRICT, WITHOUT ROWID;
