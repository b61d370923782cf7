"""What callers may use up: rates, concurrency, and a bounded queue. Pure: no clock, no I/O."""
