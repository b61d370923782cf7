-- Paid time is read off one clock, whose row a checkpoint moves on; before, each running session had a row of its own
-- to move. What was counted in the newest boot is kept to the second; of older boots, the wall clock tells.

CREATE TABLE paid_clock (
    id INTEGER NOT NULL,
    reads_s REAL NOT NULL,
    wall REAL NOT NULL,
    monotonic REAL NOT NULL,
    boot TEXT NOT NULL,
    CONSTRAINT pk_paid_clock PRIMARY KEY (id)
) STRICT;
INSERT INTO paid_clock
SELECT 1, 0.0, counted_wall, counted_monotonic, counted_boot
FROM sessions
WHERE counted_boot = (
    SELECT counted_boot
    FROM sessions
    WHERE counted_boot IS NOT NULL
    ORDER BY (SELECT min(id) FROM session_events WHERE session_id = sessions.id AND event = 'active') DESC
    LIMIT 1
)
ORDER BY counted_monotonic DESC
LIMIT 1;
INSERT OR IGNORE INTO paid_clock VALUES (1, 0.0, CAST(strftime('%s', 'now') AS REAL), 0.0, '');
ALTER TABLE sessions ADD COLUMN counted_from REAL;
UPDATE sessions
SET counted_from = 0.0,
    used_s = used_s + max(0.0, CASE counted_boot WHEN boot THEN monotonic - counted_monotonic ELSE wall - counted_wall END)
FROM paid_clock
WHERE counted_boot IS NOT NULL;
ALTER TABLE sessions DROP COLUMN counted_wall;
ALTER TABLE sessions DROP COLUMN counted_monotonic;
ALTER TABLE sessions DROP COLUMN counted_boot;
CREATE INDEX ix_sessions_ends ON sessions ((counted_from + paid_s) - used_s) WHERE counted_from IS NOT NULL;
