CREATE INDEX ix_xeris_accepted_overdue ON xeris_accepted (kind) WHERE anchor_id IS NULL AND overdue = 1;
