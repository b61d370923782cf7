-- Every table, as versions 1 and 2 made it. A step is never edited: what changes later is a step of its own.

CREATE TABLE play_accounts (
    address BLOB NOT NULL,
    balance INTEGER NOT NULL,
    CONSTRAINT pk_play_accounts PRIMARY KEY (address)
) STRICT;

CREATE TABLE play_authorizations (
    payer BLOB NOT NULL,
    nonce BLOB NOT NULL,
    pay_to BLOB NOT NULL,
    amount INTEGER NOT NULL,
    transaction_hash TEXT NOT NULL,
    at REAL NOT NULL,
    CONSTRAINT pk_play_authorizations PRIMARY KEY (payer, nonce)
) STRICT;

CREATE TABLE meta (
    "key" TEXT NOT NULL,
    value TEXT NOT NULL,
    CONSTRAINT pk_meta PRIMARY KEY ("key")
) STRICT;

CREATE TABLE payments (
    id TEXT NOT NULL,
    state TEXT NOT NULL,
    kind TEXT NOT NULL,
    session_id TEXT NOT NULL,
    controller BLOB NOT NULL,
    request_hash BLOB NOT NULL,
    network TEXT NOT NULL,
    asset BLOB NOT NULL,
    payer BLOB NOT NULL,
    nonce BLOB NOT NULL,
    pay_to BLOB NOT NULL,
    amount INTEGER NOT NULL,
    valid_after INTEGER NOT NULL,
    valid_before INTEGER NOT NULL,
    payload BLOB NOT NULL,
    requirements BLOB NOT NULL,
    seconds REAL NOT NULL,
    client_address TEXT NOT NULL,
    reason TEXT,
    transaction_hash TEXT,
    attempts INTEGER DEFAULT '0' NOT NULL,
    next_attempt_at REAL,
    crashes INTEGER DEFAULT '0' NOT NULL,
    quarantined_at REAL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    settled_at REAL,
    identifier TEXT,
    CONSTRAINT pk_payments PRIMARY KEY (id)
) STRICT;
CREATE INDEX ix_payments_due ON payments (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX ix_payments_created ON payments (created_at);
CREATE INDEX ix_payments_identifier ON payments (controller, identifier) WHERE identifier IS NOT NULL;
CREATE INDEX ix_payments_payer ON payments (payer, state);
CREATE INDEX ix_payments_client ON payments (client_address, state);
CREATE INDEX ix_payments_session ON payments (session_id);
CREATE INDEX ix_payments_state ON payments (state);
CREATE UNIQUE INDEX uq_payments_authorization ON payments (network, asset, payer, nonce);
CREATE INDEX ix_payments_controller ON payments (controller, state);

CREATE TABLE refunds (
    payment_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    state TEXT NOT NULL,
    address BLOB NOT NULL,
    amount INTEGER NOT NULL,
    nonce BLOB NOT NULL,
    reason TEXT NOT NULL,
    transaction_hash TEXT,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    sender BLOB,
    payload BLOB,
    requirements BLOB,
    valid_before INTEGER,
    signed_at REAL,
    attempts INTEGER DEFAULT '0' NOT NULL,
    answer TEXT,
    CONSTRAINT pk_refunds PRIMARY KEY (payment_id, number)
) STRICT;

CREATE TABLE answered_requests (
    public_key BLOB NOT NULL,
    message_hash BLOB NOT NULL,
    request_hash BLOB NOT NULL,
    payment_id TEXT NOT NULL,
    at REAL NOT NULL,
    CONSTRAINT pk_answered_requests PRIMARY KEY (public_key, message_hash)
) STRICT;
CREATE INDEX ix_answered_requests_at ON answered_requests (at);

CREATE TABLE relay_outbox (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    nonce TEXT NOT NULL,
    output_hash TEXT NOT NULL,
    block INTEGER NOT NULL,
    payload BLOB NOT NULL,
    signed BLOB,
    signed_hash TEXT,
    state TEXT NOT NULL,
    attempts INTEGER DEFAULT '0' NOT NULL,
    next_attempt_at REAL NOT NULL,
    last_reason TEXT,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    CONSTRAINT uq_relay_outbox_kind_nonce UNIQUE (kind, nonce)
) STRICT;
CREATE INDEX ix_relay_outbox_state ON relay_outbox (state, id);

CREATE TABLE relay_log (
    id INTEGER NOT NULL,
    outbox_id INTEGER NOT NULL,
    output_hash TEXT NOT NULL,
    block INTEGER NOT NULL,
    status TEXT NOT NULL,
    http_status INTEGER,
    at REAL NOT NULL,
    CONSTRAINT pk_relay_log PRIMARY KEY (id)
) STRICT;
CREATE INDEX ix_relay_log_outbox_id ON relay_log (outbox_id, id);

CREATE TABLE sessions (
    id TEXT NOT NULL,
    controller BLOB NOT NULL,
    state TEXT NOT NULL,
    tier TEXT NOT NULL,
    paid_s REAL NOT NULL,
    amount_usd_micros INTEGER NOT NULL,
    network TEXT NOT NULL,
    payment_id TEXT NOT NULL,
    created_at REAL NOT NULL,
    active_at REAL,
    ended_at REAL,
    end_reason TEXT,
    error TEXT,
    used_s REAL DEFAULT '0' NOT NULL,
    counted_wall REAL,
    counted_monotonic REAL,
    counted_boot TEXT,
    pending_extensions INTEGER DEFAULT '0' NOT NULL,
    node_token TEXT,
    node_endpoint TEXT,
    node_hotkey BLOB,
    launch_attempts INTEGER DEFAULT '0' NOT NULL,
    crashes INTEGER DEFAULT '0' NOT NULL,
    quarantined_at REAL,
    CONSTRAINT pk_sessions PRIMARY KEY (id)
) STRICT;
CREATE INDEX ix_sessions_controller ON sessions (controller, created_at);
CREATE INDEX ix_sessions_state ON sessions (state);

CREATE TABLE session_events (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL,
    at REAL NOT NULL,
    event TEXT NOT NULL,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX ix_session_events_session ON session_events (session_id, id);

CREATE TABLE nodes (
    token TEXT NOT NULL,
    session_id TEXT NOT NULL,
    backend TEXT NOT NULL,
    state TEXT NOT NULL,
    port INTEGER,
    reference TEXT,
    hotkey BLOB,
    created_at REAL NOT NULL,
    gone_at REAL,
    CONSTRAINT pk_nodes PRIMARY KEY (token)
) STRICT;
CREATE INDEX ix_nodes_session ON nodes (session_id);
CREATE UNIQUE INDEX uq_nodes_live_port ON nodes (port) WHERE state != 'gone';

CREATE TABLE node_keys (
    public_key BLOB NOT NULL,
    path TEXT NOT NULL,
    source TEXT NOT NULL,
    added_at REAL NOT NULL,
    retired_at REAL,
    session_id TEXT,
    leased_at REAL,
    CONSTRAINT pk_node_keys PRIMARY KEY (public_key)
) STRICT;
CREATE UNIQUE INDEX uq_node_keys_session ON node_keys (session_id) WHERE session_id IS NOT NULL;
