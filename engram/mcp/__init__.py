"""MCP, the protocol by which agents call tools: servers over HTTP and standard input, and a client of one call.

`catalog` is what a server offers, `dispatcher` answers messages, `http` and `stdio` carry them, `access` and `tokens`
decide who may call over HTTP, `rules` tells the two wires apart, `client` calls a tool of another server.
"""

from engram.mcp.catalog import Catalog, Resource, Template, Tool
from engram.mcp.dispatcher import Dispatcher
from engram.mcp.model import LOCAL, Caller, McpError, Scope, ServerInfo, ToolFailed

__all__ = [
    "LOCAL",
    "Caller",
    "Catalog",
    "Dispatcher",
    "McpError",
    "Resource",
    "Scope",
    "ServerInfo",
    "Template",
    "Tool",
    "ToolFailed",
]
