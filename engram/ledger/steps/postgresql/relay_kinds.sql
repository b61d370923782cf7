-- As ../relay_kinds.sql: PostgreSQL changes a key in place.

ALTER TABLE relay_candidates ADD COLUMN kind TEXT NOT NULL DEFAULT 'scores';
ALTER TABLE relay_candidates ALTER COLUMN kind DROP DEFAULT;
ALTER TABLE relay_candidates DROP CONSTRAINT pk_relay_candidates;
ALTER TABLE relay_candidates ADD CONSTRAINT pk_relay_candidates PRIMARY KEY (netuid, kind, epoch);
ALTER TABLE relay_bundles ADD COLUMN kind TEXT NOT NULL DEFAULT 'scores';
ALTER TABLE relay_bundles ALTER COLUMN kind DROP DEFAULT;
ALTER TABLE relay_bundles DROP CONSTRAINT pk_relay_bundles;
ALTER TABLE relay_bundles ADD CONSTRAINT pk_relay_bundles PRIMARY KEY (netuid, kind, epoch);
ALTER TABLE relay_evidence ADD COLUMN kind TEXT NOT NULL DEFAULT 'scores';
ALTER TABLE relay_outbox DROP CONSTRAINT uq_relay_outbox_kind_nonce;
ALTER TABLE relay_outbox ADD CONSTRAINT uq_relay_outbox_stream_id UNIQUE (stream_id, kind, nonce);
ALTER TABLE xeris_accepted DROP CONSTRAINT uq_xeris_accepted_kind_nonce_signer;
ALTER TABLE xeris_accepted ADD CONSTRAINT uq_xeris_accepted_netuid UNIQUE (netuid, kind, nonce, signer);
CREATE TABLE relay_unanchored (
    netuid BIGINT NOT NULL,
    signer TEXT NOT NULL,
    reason TEXT NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    CONSTRAINT pk_relay_unanchored PRIMARY KEY (netuid, signer)
);
