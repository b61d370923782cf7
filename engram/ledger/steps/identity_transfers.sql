-- Identities on their way from one device to another, encrypted by a code that no gateway sees.

CREATE TABLE identity_transfers (
    id BLOB NOT NULL,
    controller BLOB NOT NULL,
    sealed BLOB NOT NULL,
    expires_at REAL NOT NULL,
    CONSTRAINT pk_identity_transfers PRIMARY KEY (id)
) STRICT;
CREATE UNIQUE INDEX uq_identity_transfers_controller ON identity_transfers (controller);
CREATE INDEX ix_identity_transfers_expires_at ON identity_transfers (expires_at)
