-- A validator: miners by hotkey, rounds with their questions, planted records, weights sent.

CREATE TABLE validator_miners (
    hotkey BLOB NOT NULL,
    uid INTEGER NOT NULL,
    ema REAL DEFAULT '0' NOT NULL,
    rounds INTEGER DEFAULT '0' NOT NULL,
    reputation REAL DEFAULT '0' NOT NULL,
    challenges INTEGER DEFAULT '0' NOT NULL,
    proved INTEGER DEFAULT '0' NOT NULL,
    slashes INTEGER DEFAULT '0' NOT NULL,
    slashed_until_block INTEGER,
    registered_only INTEGER DEFAULT '0' NOT NULL,
    lengths TEXT,
    updated_at REAL NOT NULL,
    CONSTRAINT pk_validator_miners PRIMARY KEY (hotkey)
) STRICT;
CREATE TABLE validator_signers (
    public_key BLOB NOT NULL,
    seed BLOB NOT NULL,
    hotkey BLOB NOT NULL,
    records_left INTEGER NOT NULL,
    mean_gap_s REAL NOT NULL,
    created_at REAL NOT NULL,
    CONSTRAINT pk_validator_signers PRIMARY KEY (public_key)
) STRICT;
CREATE INDEX ix_validator_signers_hotkey ON validator_signers (hotkey);
CREATE TABLE validator_families (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    hotkey BLOB NOT NULL,
    matter TEXT NOT NULL,
    until_round INTEGER NOT NULL
) STRICT;
CREATE INDEX ix_validator_families_hotkey ON validator_families (hotkey);
CREATE TABLE validator_planted (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    hotkey BLOB NOT NULL,
    family_id INTEGER NOT NULL,
    signer BLOB NOT NULL,
    text TEXT NOT NULL,
    vector BLOB,
    cid TEXT,
    state TEXT NOT NULL,
    plant_at REAL NOT NULL,
    planted_round INTEGER NOT NULL,
    delete_round INTEGER NOT NULL,
    attempts INTEGER DEFAULT '0' NOT NULL,
    reason TEXT,
    updated_at REAL NOT NULL
) STRICT;
CREATE INDEX ix_validator_planted_hotkey ON validator_planted (hotkey, state);
CREATE INDEX ix_validator_planted_state ON validator_planted (state, plant_at);
CREATE TABLE validator_rounds (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    netuid INTEGER NOT NULL,
    block INTEGER NOT NULL,
    block_hash BLOB NOT NULL,
    state TEXT NOT NULL,
    boot TEXT NOT NULL,
    opened_at REAL NOT NULL,
    closed_at REAL
) STRICT;
CREATE TABLE validator_round_miners (
    round_id INTEGER NOT NULL,
    hotkey BLOB NOT NULL,
    uid INTEGER NOT NULL,
    coldkey BLOB NOT NULL,
    url TEXT,
    reason TEXT,
    done INTEGER DEFAULT '0' NOT NULL,
    recall REAL,
    latency_ms REAL,
    proof_rate REAL,
    score REAL,
    shared_score REAL,
    group_of INTEGER,
    CONSTRAINT pk_validator_round_miners PRIMARY KEY (round_id, hotkey)
) WITHOUT ROWID,
 STRICT;
CREATE TABLE validator_questions (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    round_id INTEGER NOT NULL,
    hotkey BLOB NOT NULL,
    kind TEXT NOT NULL,
    family_id INTEGER,
    text TEXT,
    vector BLOB,
    truth TEXT NOT NULL,
    planted INTEGER NOT NULL,
    own_key INTEGER NOT NULL,
    outcome TEXT,
    recall REAL,
    proved INTEGER,
    latency_ms REAL,
    detail TEXT
) STRICT;
CREATE INDEX ix_validator_questions_round ON validator_questions (round_id, hotkey);
CREATE TABLE validator_weights (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    netuid INTEGER NOT NULL,
    hotkey BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    block INTEGER NOT NULL,
    round_id INTEGER NOT NULL,
    weights TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    at REAL NOT NULL
) STRICT;
CREATE INDEX ix_validator_weights_epoch ON validator_weights (netuid, hotkey, epoch);
CREATE TABLE validator_looks (
    netuid INTEGER NOT NULL,
    hotkey BLOB NOT NULL,
    verdict TEXT NOT NULL,
    detail TEXT NOT NULL,
    warnings TEXT NOT NULL,
    block INTEGER,
    uid INTEGER,
    at REAL NOT NULL,
    CONSTRAINT pk_validator_looks PRIMARY KEY (netuid, hotkey)
) WITHOUT ROWID,
 STRICT;
