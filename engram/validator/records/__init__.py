"""The validator's facts in the ledger. Functions run inside `ledger.write` or `ledger.read` and own no transaction."""
