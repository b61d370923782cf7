"""One file per role: its whole supervision tree, and the construction of its parts."""
