"""Engram: sells memory nodes to phones, runs them, serves what they hold."""
