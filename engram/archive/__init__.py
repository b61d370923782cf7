"""Memory that outlives its node: sealed archives of it, where they lie, and how they come back."""
