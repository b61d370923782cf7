-- The relay's outbox in streams: each kept in order, with counters instead of scans; and what was signed for a block.

CREATE TABLE relay_streams (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    netuid INTEGER NOT NULL,
    kind TEXT NOT NULL,
    signer TEXT NOT NULL,
    next_seq INTEGER NOT NULL,
    pending INTEGER NOT NULL,
    parked INTEGER NOT NULL,
    next_attempt_at REAL NOT NULL,
    last_ok_at REAL,
    last_ok_hash TEXT,
    CONSTRAINT uq_relay_streams_netuid UNIQUE (netuid, kind, signer)
) STRICT;
CREATE INDEX ix_relay_streams_due ON relay_streams (next_attempt_at) WHERE pending > 0;
CREATE TABLE relay_counts (
    name TEXT NOT NULL,
    value INTEGER NOT NULL,
    CONSTRAINT pk_relay_counts PRIMARY KEY (name)
) STRICT;
CREATE TABLE relay_signatures (
    netuid INTEGER NOT NULL,
    kind TEXT NOT NULL,
    block INTEGER NOT NULL,
    source TEXT NOT NULL,
    signer TEXT NOT NULL,
    output_hash TEXT NOT NULL,
    at REAL NOT NULL,
    CONSTRAINT pk_relay_signatures PRIMARY KEY (netuid, kind, block, source, signer)
) STRICT, WITHOUT ROWID;
ALTER TABLE relay_outbox ADD COLUMN stream_id INTEGER NOT NULL DEFAULT '0';
ALTER TABLE relay_outbox ADD COLUMN seq INTEGER NOT NULL DEFAULT '0';
ALTER TABLE relay_outbox ADD COLUMN block_hash BLOB;
INSERT INTO relay_streams (netuid, kind, signer, next_seq, pending, parked, next_attempt_at)
SELECT coalesce(json_extract(CAST(payload AS TEXT), '$.netuid'), 0), kind, '', max(id) + 1,
       sum(state IN ('pending', 'sending')), sum(state = 'abandoned'), 0
FROM relay_outbox GROUP BY 1, 2;
UPDATE relay_outbox SET seq = id, stream_id = (
    SELECT s.id FROM relay_streams s
    WHERE s.kind = relay_outbox.kind AND s.netuid = coalesce(json_extract(CAST(payload AS TEXT), '$.netuid'), 0)
);
INSERT INTO relay_counts
SELECT column1, column2 FROM (VALUES
    ('pending', (SELECT count(*) FROM relay_outbox WHERE state IN ('pending', 'sending'))),
    ('parked', (SELECT count(*) FROM relay_outbox WHERE state = 'abandoned')),
    ('ok', (SELECT count(*) FROM relay_log WHERE status = 'ok')),
    ('failed', (SELECT count(*) FROM relay_log WHERE status != 'ok'))
);
DROP INDEX ix_relay_outbox_state;
CREATE INDEX ix_relay_outbox_stream ON relay_outbox (stream_id, state, seq);
CREATE INDEX ix_relay_outbox_over ON relay_outbox (updated_at) WHERE state IN ('delivered', 'discarded', 'withdrawn');
CREATE INDEX ix_relay_log_at ON relay_log (at);
