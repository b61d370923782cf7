"""Re-exports the launch file of a node, which is defined in `engram.nodes.launch`."""

from engram.nodes.launch import SCHEMA, EmbedderLaunch, LaunchFile, LaunchFileError, check, read, write

__all__ = ["SCHEMA", "EmbedderLaunch", "LaunchFile", "LaunchFileError", "check", "read", "write"]
