"""The HTTP surface of a memory node."""
