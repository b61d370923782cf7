"""Engram sells, runs and watches memory-mining nodes, and relays what is learned of them."""

__version__ = "0.1.0"
