"""A tool of an MCP server, called for a payload before it is signed: what an outside source said at that block.

The call is bounded in time and bytes. Whatever becomes of it is recorded with the payload; it never holds one up.
"""

from hashlib import sha256
from pathlib import Path
from typing import Final, final

import msgspec
import trio

from config.model import RelaySettings
from engram.clock import Clock
from engram.hotkeys.passwords import line_of_file
from engram.http.client import HttpClient
from engram.mcp.client import ToolClient
from engram.mcp.connect import audience
from engram.mcp.remote import RemoteFailed
from engram.relay.model import ToolCall

MAX_CONTENT: Final = 16_384
"""Characters of a result that are kept; its hash is of all of it."""


def payload_tool(http: HttpClient, clock: Clock, settings: RelaySettings) -> "PayloadTool | None":
    """Return the configured tool; None without one. Raises WalletFileError for a token file that cannot be used."""
    if not settings.tool_url:
        return None
    token = ""
    if settings.tool_token_file:
        path = Path(settings.tool_token_file).expanduser()
        token = line_of_file(path, "relay.tool_token_file", "token of the MCP server")
    client = ToolClient(http, settings.tool_url, token=token, within_s=settings.tool_timeout_s)
    return PayloadTool(client, audience(settings.tool_url), settings.tool, clock)


@final
class PayloadTool:
    """The configured tool."""

    def __init__(self, client: ToolClient, server: str, tool: str, clock: Clock) -> None:
        """Take the server's host and port, as it is recorded."""
        self._client = client
        self._server = server
        self._tool = tool
        self._clock = clock

    async def __call__(self, netuid: int, block: int) -> ToolCall:
        """Call the tool with subnet and block, and return what became of it; raises nothing."""
        began, at = trio.current_time(), self._clock.now()
        status, content, digest = "failed", "", ""
        try:
            called = await self._client.call(self._tool, {"netuid": netuid, "block": block})
        except RemoteFailed as failed:
            content = str(failed)
        else:
            status = "tool_error" if called.is_error else "ok"
            whole = msgspec.json.encode(called.result)
            content, digest = whole.decode(), sha256(whole).hexdigest()
        return ToolCall(
            server=self._server,
            tool=self._tool,
            called_at=at,
            took_ms=round((trio.current_time() - began) * 1000),
            status=status,
            content=content[:MAX_CONTENT],
            content_sha256=digest,
        )
