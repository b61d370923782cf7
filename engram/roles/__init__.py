"""One file per role: its whole supervision tree, and what its parts are made of."""
