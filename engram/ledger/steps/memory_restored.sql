-- When a session's controller restored what its node had lost.

ALTER TABLE sessions ADD COLUMN restored_at REAL;
