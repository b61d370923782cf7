"""What an MCP server speaks: JSON-RPC messages, the caller, and errors by the specification's codes.

Two wires are served. In the handshake wire (2025-03-26 to 2025-11-25) a client begins with `initialize`; in the
stateless wire (2026-07-28) every request carries its version and capabilities in `params._meta`. Neither keeps a
session here: nothing is remembered between two requests.
"""

from typing import Any, Final, Literal, TypeAlias, final

import msgspec
from msgspec import UNSET, UnsetType

from engram.hotkeys import PublicKey

HANDSHAKE_VERSIONS: Final = ("2025-03-26", "2025-06-18", "2025-11-25")
STATELESS_VERSIONS: Final = ("2026-07-28",)
SUPPORTED: Final = (*HANDSHAKE_VERSIONS, *STATELESS_VERSIONS)
"""Oldest first."""

META: Final = "io.modelcontextprotocol/"
VERSION_KEY: Final = META + "protocolVersion"
CAPABILITIES_KEY: Final = META + "clientCapabilities"
SERVER_KEY: Final = META + "serverInfo"

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
BUSY: Final = -32000
"""Ours, of the range that implementations may use: too many calls at once."""
DENIED: Final = -32001
"""Ours: the caller may not do this."""
RESOURCE_NOT_FOUND: Final = -32002
"""Of the handshake wire; the stateless one says INVALID_PARAMS."""
HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022

STATUS: Final = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
    DENIED: 403,
    BUSY: 503,
}
"""HTTP statuses of the stateless wire; in the handshake wire an error of a method is answered with 200."""

Scope = Literal["read", "write"]
RequestId: TypeAlias = int | str


class Message(msgspec.Struct, frozen=True):
    """One JSON-RPC message: a request, a notification (no id), or a response (no method)."""

    jsonrpc: Literal["2.0"]
    method: str | UnsetType = UNSET
    id: RequestId | UnsetType | None = UNSET
    params: dict[str, Any] | UnsetType = UNSET
    result: msgspec.Raw | UnsetType = UNSET
    error: msgspec.Raw | UnsetType = UNSET


@final
class McpError(Exception):
    """The answer to a request is a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


@final
class ToolFailed(Exception):
    """A tool did not do what was asked; the message tells the agent why, and what would be right."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks, and what they may do."""

    key: PublicKey | None = None
    """The hotkey that signed; None on loopback and standard input."""
    scopes: frozenset[Scope] = frozenset({"read", "write"})
    namespaces: frozenset[str] | None = None
    """The only namespaces that a token allows; None: no further restriction."""


LOCAL: Final = Caller()
"""A caller on this machine: whoever started the server, or reached it on loopback."""


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a server introduces itself."""

    name: str
    title: str = ""
    version: str = ""
