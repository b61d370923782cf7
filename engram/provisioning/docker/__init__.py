"""Nodes as containers of a Docker engine, or of one that speaks its API, such as Podman."""
