-- What was acknowledged is anchored on the chain: roots by epoch, on both sides.

ALTER TABLE relay_outbox ADD COLUMN anchor_id INTEGER;
CREATE TABLE relay_anchors (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    netuid INTEGER NOT NULL,
    signer TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    root BLOB NOT NULL,
    leaves TEXT NOT NULL,
    state TEXT NOT NULL,
    sent_until_block INTEGER NOT NULL,
    committed_block INTEGER,
    at REAL NOT NULL
) STRICT;
CREATE INDEX ix_relay_anchors_state ON relay_anchors (netuid, signer, state);
CREATE TABLE xeris_anchors (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    netuid INTEGER NOT NULL,
    signer BLOB NOT NULL,
    kind TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    block INTEGER NOT NULL,
    root BLOB NOT NULL,
    leaves TEXT NOT NULL,
    at REAL NOT NULL
) STRICT;
CREATE INDEX ix_xeris_anchors_at ON xeris_anchors (at);
ALTER TABLE xeris_accepted ADD COLUMN anchor_id INTEGER;
ALTER TABLE xeris_accepted ADD COLUMN leaf INTEGER;
ALTER TABLE xeris_accepted ADD COLUMN overdue INTEGER NOT NULL DEFAULT '0';
CREATE INDEX ix_xeris_accepted_unanchored ON xeris_accepted (netuid, block) WHERE anchor_id IS NULL AND overdue = 0;
