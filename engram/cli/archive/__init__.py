"""`engram archive`: archives of a memory that outlive its node."""
