"""Commits, once an epoch, to what was delivered: the root of its output hashes stands on the chain."""
