-- Which gateway works a row: the epoch of its lease on PostgreSQL, 0 where one process has the ledger for itself.

ALTER TABLE payments ADD COLUMN owner_epoch INTEGER NOT NULL DEFAULT '0';
ALTER TABLE nodes ADD COLUMN owner_epoch INTEGER NOT NULL DEFAULT '0';
ALTER TABLE sessions ADD COLUMN owner_epoch INTEGER NOT NULL DEFAULT '0'
