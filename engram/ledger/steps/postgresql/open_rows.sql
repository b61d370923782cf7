-- What gateways that are gone have left is looked for four times in each lease, with the turn held.

CREATE INDEX ix_sessions_owner ON sessions (owner_epoch) WHERE ended_at IS NULL;
CREATE INDEX ix_payments_owner ON payments (owner_epoch) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX ix_nodes_owner ON nodes (owner_epoch) WHERE state <> 'gone'
