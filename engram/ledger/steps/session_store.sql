-- What holds the memory of a session's node, and when another one took its place.

ALTER TABLE sessions ADD COLUMN node_store TEXT;
ALTER TABLE sessions ADD COLUMN emptied_at REAL;
