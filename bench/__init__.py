"""Benchmarks: `make bench` runs all, `make bench NAME=purchase` one. Each prints one JSON object as its last line."""
