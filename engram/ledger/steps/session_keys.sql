-- The session keys of nodes that do not have their hotkey.

CREATE TABLE node_session_keys (
    token TEXT NOT NULL,
    number INTEGER NOT NULL,
    session_key BLOB NOT NULL,
    box_key BLOB NOT NULL,
    shown_at REAL NOT NULL,
    certified_until REAL NOT NULL,
    PRIMARY KEY (token, number)
) STRICT;
CREATE UNIQUE INDEX uq_node_session_keys_key ON node_session_keys (session_key);
