-- Entries of the relay's outbox that are kept are counted in every state.

INSERT INTO relay_counts
SELECT column1, column2 FROM (VALUES
    ('delivered', (SELECT count(*) FROM relay_outbox WHERE state = 'delivered')),
    ('discarded', (SELECT count(*) FROM relay_outbox WHERE state = 'discarded')),
    ('withdrawn', (SELECT count(*) FROM relay_outbox WHERE state = 'withdrawn'))
);
