-- A receiver of the relay: what it accepted, and who held a permit at which block.

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
    CONSTRAINT uq_xeris_accepted_kind_nonce_signer UNIQUE (kind, nonce, signer)
) STRICT;
CREATE INDEX ix_xeris_accepted_newest ON xeris_accepted (netuid, kind, id);
CREATE INDEX ix_xeris_accepted_received ON xeris_accepted (received_at);
CREATE INDEX ix_xeris_accepted_signer ON xeris_accepted (signer, netuid, kind, block);
CREATE TABLE xeris_permits (
    netuid INTEGER NOT NULL,
    block INTEGER NOT NULL,
    until_block INTEGER NOT NULL,
    holders BLOB NOT NULL,
    CONSTRAINT pk_xeris_permits PRIMARY KEY (netuid, block)
) WITHOUT ROWID, STRICT;
