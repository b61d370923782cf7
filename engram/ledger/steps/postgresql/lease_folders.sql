-- Which data folder a lease is of: one process has it at a time, so that its next start ends the lease of the one before.

ALTER TABLE gateways ADD COLUMN folder TEXT NOT NULL DEFAULT ''
