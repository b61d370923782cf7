"""One SQLite foundation under ledger and memory."""
