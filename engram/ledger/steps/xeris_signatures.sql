-- A receiver knows every key that has signed an output, co-signers too.

CREATE TABLE xeris_signatures (
    signer BLOB NOT NULL,
    netuid INTEGER NOT NULL,
    kind TEXT NOT NULL,
    block INTEGER NOT NULL,
    source TEXT NOT NULL,
    output_hash TEXT NOT NULL,
    at REAL NOT NULL,
    CONSTRAINT pk_xeris_signatures PRIMARY KEY (signer, netuid, kind, block, source)
) STRICT, WITHOUT ROWID;
CREATE INDEX ix_xeris_signatures_at ON xeris_signatures (at);
INSERT OR IGNORE INTO xeris_signatures
SELECT signer, netuid, kind, block, CASE kind WHEN 'scores' THEN '' ELSE source END, output_hash, received_at
FROM xeris_accepted;
