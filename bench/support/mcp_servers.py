"""Servers for bench/mcp.py: the same three tools on ours and on the official SDK's server, each as a process.

`python -m bench.support.mcp_servers ours|official|official-stdio`: the first line of an HTTP one is its port. The
official ones run where the SDK is on the path (.mcp); over HTTP stateless with JSON answers, its quickest form.
"""

import json
import socket
import sys
from typing import Any, Final

NAMES: Final = ("search", "latest", "get")
DOCUMENT: Final = {"kind": "scores", "scores": {str(uid): {"recall": 0.5, "proof_rate": 1.0} for uid in range(16)}}
SCHEMA: Final = {
    "type": "object",
    "properties": {"netuid": {"type": "integer", "minimum": 0}, "kind": {"type": "string"}},
    "required": ["netuid"],
    "additionalProperties": False,
}


def ours() -> None:
    """Serve by engram.mcp on engram.http."""
    import msgspec
    import trio

    from engram.clock import SystemClock
    from engram.http.router import Router
    from engram.mcp import Caller, Catalog, Dispatcher, ServerInfo, Tool
    from engram.mcp.access import ALL, Access, Policy
    from engram.mcp.http import McpEndpoint
    from engram.telemetry import logs
    from tests.http.harness import make_app, serving

    class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        netuid: int
        kind: str = "scores"

    class Given(msgspec.Struct, frozen=True):
        document: dict[str, Any]

    async def run(asked: Asked, _: Caller) -> Given:
        return Given(DOCUMENT)

    async def never(key: bytes, token_id: str) -> bool:
        return False

    tools = tuple(Tool(name=name, title=name, description=name, takes=Asked, gives=Given, run=run) for name in NAMES)
    catalog = Catalog(info=ServerInfo(name="bench", version="1"), instructions="", tools=tools)

    logs.configure("WARNING", json=True)  # the official server writes no line for a request either

    async def main() -> None:
        app = make_app()
        endpoint = McpEndpoint(Dispatcher(catalog), Access(Policy(loopback=ALL), SystemClock(), never))
        Router(app).add("POST", "/mcp", endpoint.post, hot=True)
        async with serving(app) as running:
            print(running.port, flush=True)
            await trio.sleep_forever()

    trio.run(main)


def _official() -> Any:
    import mcp_types as types
    from mcp.server.lowlevel import Server

    async def listed(context: Any, params: Any) -> Any:
        output = {"type": "object", "properties": {"document": {"type": "object"}}}
        tools = [types.Tool(name=name, description=name, input_schema=SCHEMA, output_schema=output) for name in NAMES]
        return types.ListToolsResult(tools=tools)

    async def called(context: Any, params: Any) -> Any:
        given = {"document": DOCUMENT}
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=json.dumps(given))], structured_content=given
        )

    return Server("bench", version="1", on_list_tools=listed, on_call_tool=called)


def official() -> None:
    """Serve by the official SDK under uvicorn."""
    import uvicorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = _official().streamable_http_app(json_response=True, stateless_http=True)
    print(port, flush=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


def official_stdio() -> None:
    """Serve by the official SDK on standard input; it imports the client by which its tools would reach a node."""
    import httpx2
    import trio
    from mcp.server.stdio import stdio_server

    async def main() -> None:
        server = _official()
        async with httpx2.AsyncClient(), stdio_server() as (source, sink):
            await server.run(source, sink, server.create_initialization_options())

    trio.run(main)


if __name__ == "__main__":
    {"ours": ours, "official": official, "official-stdio": official_stdio}[sys.argv[1]]()
