-- Work that one process at a time does, of those that share a ledger, and who does it.

CREATE TABLE singletons (
    role TEXT NOT NULL,
    owner_epoch INTEGER NOT NULL,
    CONSTRAINT pk_singletons PRIMARY KEY (role)
) STRICT
