-- Sessions in each state, counted by the transactions that change it; and an index for the live ones of a hotkey.

CREATE TABLE session_counts (
    state TEXT NOT NULL,
    sessions INTEGER NOT NULL,
    CONSTRAINT pk_session_counts PRIMARY KEY (state)
) STRICT;
INSERT INTO session_counts
SELECT column1, (SELECT count(*) FROM sessions WHERE state = column1)
FROM (VALUES ('payment_pending'), ('provisioning'), ('active'), ('degraded'), ('stopping'), ('stopped'), ('expired'), ('failed'));
CREATE INDEX ix_sessions_live ON sessions (controller) WHERE state IN ('active', 'degraded', 'payment_pending', 'provisioning');
