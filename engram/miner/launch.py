"""The launch file of a node, where those who start nodes may import it from: `engram.nodes.launch`."""

from engram.nodes.launch import SCHEMA, EmbedderLaunch, LaunchFile, LaunchFileError, check, read, write

__all__ = ["SCHEMA", "EmbedderLaunch", "LaunchFile", "LaunchFileError", "check", "read", "write"]
