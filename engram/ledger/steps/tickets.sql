-- Tickets for event streams: which were used, and which requests for them, known to all gateways of a ledger.

CREATE TABLE ticket_requests (
    request BLOB NOT NULL,
    forget_at REAL NOT NULL,
    CONSTRAINT pk_ticket_requests PRIMARY KEY (request)
) STRICT;
CREATE INDEX ix_ticket_requests_forget_at ON ticket_requests (forget_at);
CREATE TABLE ticket_lineages (
    number INTEGER NOT NULL,
    session_id TEXT NOT NULL,
    opened INTEGER NOT NULL,
    openings INTEGER NOT NULL,
    opened_at REAL NOT NULL,
    CONSTRAINT pk_ticket_lineages PRIMARY KEY (number)
) STRICT;
CREATE INDEX ix_ticket_lineages_session_id_opened_at ON ticket_lineages (session_id, opened_at);
CREATE INDEX ix_ticket_lineages_opened_at ON ticket_lineages (opened_at)
