"""The endpoint of an MCP server, the same on every surface that has one: rows to take into its table."""

from typing import Final

import msgspec

from engram.api.route import Parameter, Response, Route


class McpMessage(msgspec.Struct, frozen=True):
    """One JSON-RPC message; the server reads it strictly, by the specification of its version."""


class McpResponse(msgspec.Struct, frozen=True):
    """One JSON-RPC response."""


class McpRefusal(msgspec.Struct, frozen=True):
    """Why a request was refused before its message was read."""

    error: str
    code: str


class RevokeBody(msgspec.Struct, frozen=True, kw_only=True):
    """Which token is revoked, and when it would have expired (unix seconds)."""

    id: str
    exp: int


class RevokedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The token is not taken any more."""

    revoked: str


_REFUSED: Final = (
    Response(401, "The token is missing, expired, revoked or not valid here (WWW-Authenticate).", McpRefusal),
    Response(403, "A page of another origin, a key that may not call, or a scope that the token has not.", McpRefusal),
    Response(421, "The Host header names another server.", McpRefusal),
    Response(503, "Busy: try again.", McpRefusal),
)
_AUTHORIZATION: Final = Parameter("Authorization", "header", "Bearer and a token that a hotkey signed.")

MCP: Final = Route(
    "mcp",
    "POST",
    "/mcp",
    "Model Context Protocol: one message, one JSON answer (2025-03-26 to 2026-07-28); no sessions, no streams.",
    McpMessage,
    Response(200, "The response; its errors are JSON-RPC's.", McpResponse),
    others=(
        Response(202, "A notification was taken."),
        Response(400, "The message is not valid JSON-RPC, or its headers are not its own.", McpResponse),
        Response(404, "There is no such method (2026-07-28).", McpResponse),
        Response(406, "The client takes no JSON.", McpRefusal),
        Response(415, "The body is not declared as JSON.", McpRefusal),
        *_REFUSED,
    ),
    parameters=(
        _AUTHORIZATION,
        Parameter("MCP-Protocol-Version", "header", "The version; required from 2026-07-28 on."),
        Parameter("Mcp-Method", "header", "The method, repeated (2026-07-28)."),
        Parameter("Mcp-Name", "header", "The tool or URI, repeated (2026-07-28)."),
    ),
    hot=True,
    max_values=8_192,
)
REVOKE: Final = Route(
    "revokeMcpToken",
    "POST",
    "/mcp/revocations",
    "Revoke a token; signed by the same key.",
    RevokeBody,
    Response(200, "It is not taken any more.", RevokedAnswer),
    others=(
        *_REFUSED,
        Response(422, "The body is not id and exp of a token.", McpRefusal),
        Response(429, "Too many tokens of this key, or from this address, were revoked.", McpRefusal),
    ),
    parameters=(_AUTHORIZATION,),
)

ROUTES: Final = (MCP, REVOKE)
