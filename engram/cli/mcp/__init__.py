"""`engram mcp`."""
