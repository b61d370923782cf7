-- What only PostgreSQL keeps: the version of the tables, the turn that writing groups take, the leases of gateways.

CREATE TABLE ledger_schema (
    version BIGINT NOT NULL
);
INSERT INTO ledger_schema VALUES (0);
CREATE TABLE ledger_turn (
    id BIGINT NOT NULL PRIMARY KEY
) WITH (fillfactor = 50);
INSERT INTO ledger_turn VALUES (1);
CREATE TABLE gateways (
    epoch BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT NOT NULL,
    host TEXT NOT NULL,
    address TEXT NOT NULL,
    started_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    expires_at TIMESTAMPTZ NOT NULL,
    draining_at TIMESTAMPTZ,
    ended_at TIMESTAMPTZ,
    groups BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE INDEX ix_gateways_live ON gateways (expires_at) WHERE ended_at IS NULL
