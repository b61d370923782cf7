"""Calls one tool of another MCP server, once: the newest wire first, the handshake where the server does not know it.

The whole call, handshake included, is bounded in time; each answer is bounded in bytes.
"""

from collections.abc import Mapping
from typing import Any, Final, final

import msgspec
import trio

from engram.http.client import HttpClient
from engram.mcp import remote
from engram.mcp.model import HANDSHAKE_VERSIONS, HEADER_MISMATCH, METHOD_NOT_FOUND, UNSUPPORTED_VERSION
from engram.mcp.remote import Exchanged, RemoteFailed, Response

MAX_BYTES: Final = 262_144
WITHIN_S: Final = 5.0
_SESSION: Final = "mcp-session-id"
_ID: Final = 1
_BEGINNING: Final = 0


class Called(msgspec.Struct, frozen=True):
    """What a tool gave."""

    result: dict[str, object]
    """The result of `tools/call`, as it came."""
    is_error: bool
    """Whether the tool says that it failed."""


@final
class ToolClient:
    """One server. Raises RemoteFailed for everything that can go wrong."""

    def __init__(
        self,
        http: HttpClient,
        url: str,
        *,
        token: str = "",
        within_s: float = WITHIN_S,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._http = http
        self._url = url
        self._authorization = {"authorization": f"Bearer {token}"} if token else {}
        self._within_s = within_s
        self._max_bytes = max_bytes
        self._handshake = False
        """Whether the server spoke the handshake wire when it was last used."""

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Called:
        """Call a tool. Raises RemoteFailed."""
        params = {"name": tool, "arguments": dict(arguments)}
        with trio.move_on_after(self._within_s):
            if self._handshake:
                try:
                    return _called(await self._by_handshake(params))
                except RemoteFailed:
                    if self._handshake:
                        raise
            exchanged = await self._post("tools/call", remote.enveloped(params), stateless=True)
            if not _wants_handshake(exchanged):
                return _called(exchanged)
            found = _called(await self._by_handshake(params))
            self._handshake = True
            return found
        raise RemoteFailed(f"no answer within {self._within_s:g} s")

    async def _by_handshake(self, params: Mapping[str, Any]) -> Exchanged:
        hello = {
            "protocolVersion": HANDSHAKE_VERSIONS[-1],
            "capabilities": {},
            "clientInfo": {"name": "engram", "version": "1"},
        }
        begun = await self._post("initialize", hello, request_id=_BEGINNING)
        if begun.response is None or begun.response.result is None:
            if _code(begun) in (UNSUPPORTED_VERSION, METHOD_NOT_FOUND):
                self._handshake = False
            raise _failed(begun, "initialize")
        version = begun.response.result.get("protocolVersion")
        if version not in HANDSHAKE_VERSIONS:
            raise RemoteFailed(f"the server speaks version {str(version)[:20]}, which is not known here")
        more = {"mcp-protocol-version": str(version)}
        if (session := begun.headers.get(_SESSION)) is not None:
            more[_SESSION] = session
        await self._post("notifications/initialized", {}, headers=more, request_id=None)
        called = await self._post("tools/call", params, headers=more)
        if _code(called) == UNSUPPORTED_VERSION:
            self._handshake = False
        return called

    async def _post(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        stateless: bool = False,
        request_id: int | None = _ID,
    ) -> Exchanged:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if request_id is not None:
            message["id"] = request_id
        if params:
            message["params"] = dict(params)
        more = remote.routing(method, params) if stateless else dict(headers or {})
        return await remote.post(
            self._http,
            self._url,
            msgspec.json.encode(message),
            {**more, **self._authorization},
            request_id=request_id,
            within_s=self._within_s,
            max_bytes=self._max_bytes,
        )


def _wants_handshake(exchanged: Exchanged) -> bool:
    """Return whether a server refused a request for the wire that it is of."""
    error = None if exchanged.response is None else exchanged.response.error
    code = _code(exchanged)
    if code == UNSUPPORTED_VERSION:
        data = error.get("data") if error else None
        supported = data.get("supported", []) if isinstance(data, dict) else []
        return isinstance(supported, list) and any(version in HANDSHAKE_VERSIONS for version in supported)
    return exchanged.status in (400, 404, 405, 406) and code not in (METHOD_NOT_FOUND, -32602, HEADER_MISMATCH)


def _code(exchanged: Exchanged) -> object:
    """Return the code of a JSON-RPC error; None where there is none."""
    error = None if exchanged.response is None else exchanged.response.error
    return None if error is None else error.get("code")


def _called(exchanged: Exchanged) -> Called:
    response: Response | None = exchanged.response
    if response is None or response.result is None:
        raise _failed(exchanged, "tools/call")
    if not isinstance(response.result.get("content"), list):
        raise RemoteFailed("the result of tools/call has no content")
    return Called(response.result, response.result.get("isError") is True)


def _failed(exchanged: Exchanged, method: str) -> RemoteFailed:
    error = None if exchanged.response is None else remote.error_of(exchanged.response)
    if error is not None:
        return RemoteFailed(f"{method}: {error.code} {error.message}")
    return RemoteFailed(f"{method} was answered with status {exchanged.status} and no result")
