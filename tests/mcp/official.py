"""A program that speaks to an MCP server with the official Python SDK, on trio: the other side in tests.

It runs where the SDK is on the path. Standard input is one JSON object: `command` (a stdio server) or `url` with
`token`, `mode` (legacy, auto, or a version), and `steps`, each a method of the client with its arguments. Its output is
one JSON line for each step: the result as the SDK read it, or the error.
"""

import json
import sys
from typing import Any

import httpx2
import trio

_WITHIN_S = 60.0


async def steps_of(client: Any, steps: list[list[Any]]) -> None:
    from mcp import MCPError

    for name, *given in steps:
        try:
            if name == "about":
                info = client.server_info
                shown = {"version": client.protocol_version, "name": None if info is None else info.name}
            elif name == "call_at_once":
                found: list[Any] = [None] * len(given[1])
                async with trio.open_nursery() as nursery:
                    for place, arguments in enumerate(given[1]):
                        nursery.start_soon(_into, found, place, client, given[0], arguments)
                shown = {"results": found}
            else:
                result = await getattr(client, name)(*given)
                shown = result.model_dump(mode="json", by_alias=True)
        except MCPError as error:
            shown = {"error": {"code": error.code, "message": error.message}}
        print(json.dumps(shown), flush=True)


async def _into(found: list[Any], place: int, client: Any, tool: str, arguments: dict[str, Any]) -> None:
    result = await client.call_tool(tool, arguments)
    found[place] = {"is_error": result.is_error, "content": result.structured_content}


async def main() -> None:
    from mcp import Client, StdioServerParameters, stdio_client
    from mcp.client.streamable_http import streamable_http_client

    asked = json.loads(sys.stdin.readline())
    if "command" in asked:
        [command, *arguments] = asked["command"]
        transport: Any = stdio_client(StdioServerParameters(command=command, args=arguments, env=asked.get("env")))
        with trio.fail_after(asked.get("within_s", _WITHIN_S)):
            async with Client(transport, mode=asked["mode"]) as client:
                await steps_of(client, asked["steps"])
        return
    headers = {"Authorization": f"Bearer {asked['token']}"} if asked.get("token") else {}
    async with httpx2.AsyncClient(headers=headers, trust_env=False, timeout=30.0) as http:
        transport = streamable_http_client(asked["url"], http_client=http)
        with trio.fail_after(asked.get("within_s", _WITHIN_S)):
            async with Client(transport, mode=asked["mode"]) as client:
                await steps_of(client, asked["steps"])


if __name__ == "__main__":
    trio.run(main)
