"""The memory of one node for agents: MCP tools over the SDK, with encryption on this side."""
