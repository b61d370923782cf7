"""Akash: nodes on machines of strangers, leased by our own transactions; no CLI, no SDK."""
