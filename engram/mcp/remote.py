"""One message to another MCP server over HTTP, and its answer; bounded in time and bytes, whatever the server does.

The answer is JSON, or the first event of a stream that has the request's id. No redirect is followed, no proxy of the
environment is used, no content encoding is taken, raw bytes are counted. Every failure is one error.
"""

from collections.abc import AsyncIterable, Iterator, Mapping
from typing import Any, Final, final

import msgspec
import trio

from engram import wire
from engram.http.client import HttpClient
from engram.http.errors import HttpError
from engram.mcp.model import CAPABILITIES_KEY, STATELESS_VERSIONS, VERSION_KEY, McpError, RequestId
from engram.mcp.rules import METHOD_HEADER, NAME_HEADER, NAMED, VERSION_HEADER, header_spelled

ACCEPT: Final = "application/json, text/event-stream"
STATELESS: Final = STATELESS_VERSIONS[-1]


@final
class RemoteFailed(Exception):
    """There is no answer that can be used; the message says why."""


class Response(msgspec.Struct, frozen=True):
    """A JSON-RPC response."""

    id: RequestId | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class Exchanged(msgspec.Struct, frozen=True):
    """What one POST brought; `response` is None where the server only took the message (202)."""

    status: int
    headers: Mapping[str, str]
    response: Response | None
    body: bytes


def enveloped(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params of a request of the stateless wire."""
    return {**params, "_meta": {VERSION_KEY: STATELESS, CAPABILITIES_KEY: {}}}


def routing(method: str, params: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that repeat what a request of the stateless wire says."""
    meta = params.get("_meta")
    version = meta.get(VERSION_KEY, STATELESS) if isinstance(meta, dict) else STATELESS
    headers = {VERSION_HEADER: str(version), METHOD_HEADER: method}
    named = params.get(NAMED.get(method, ""))
    return headers | {NAME_HEADER: header_spelled(named)} if isinstance(named, str) else headers


async def post(
    http: HttpClient,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    request_id: RequestId | None,
    within_s: float,
    max_bytes: int,
) -> Exchanged:
    """Send one message and return the answer to it. Raises RemoteFailed."""
    lines = {"content-type": "application/json", "accept": ACCEPT, "accept-encoding": "identity", **headers}
    try:
        with trio.fail_after(within_s):
            async with http.stream(
                "POST", url, headers=lines, body=body, answer_s=within_s, idle_s=within_s, total_s=within_s
            ) as answer:
                received = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
                media = received.get("content-type", "").partition(";")[0].strip().lower()
                if received.get("content-encoding", "identity") != "identity":
                    raise RemoteFailed("the answer has a content encoding that was not asked for")
                if media == "text/event-stream" and answer.status == 200:
                    content = await _event(answer, request_id, max_bytes)
                else:
                    content = await _whole(answer, max_bytes)
                return Exchanged(answer.status, received, _response(content, answer.status, request_id), content)
    except trio.TooSlowError:
        raise RemoteFailed(f"no answer within {within_s:g} s") from None
    except HttpError as error:
        raise RemoteFailed(str(error)) from None


def error_of(response: Response) -> McpError | None:
    """Return the JSON-RPC error of a response, None where it is a result."""
    if response.error is None:
        return None
    code, message = response.error.get("code"), response.error.get("message")
    return McpError(code if isinstance(code, int) else 0, str(message)[:500])


async def _whole(parts: AsyncIterable[bytes], max_bytes: int) -> bytes:
    content = bytearray()
    async for part in parts:
        content += part
        if len(content) > max_bytes:
            raise RemoteFailed(f"the answer has more than {max_bytes} bytes")
    return bytes(content)


async def _event(parts: AsyncIterable[bytes], request_id: RequestId | None, max_bytes: int) -> bytes:
    """Return the data of the first event that answers the request; others are requests and notifications to us."""
    events, seen = _Events(), 0
    async for part in parts:
        seen += len(part)
        if seen > max_bytes:
            raise RemoteFailed(f"the event stream has more than {max_bytes} bytes and no answer")
        for data in events.of(part):
            if _answers(data, request_id):
                return data
    raise RemoteFailed("the event stream ended without an answer")


@final
class _Events:
    """Reads the data of server-sent events from a stream in parts, which may end anywhere; each byte is read once."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._after_cr = False

    def of(self, part: bytes) -> Iterator[bytes]:
        """Yield the data of the events that end in this part."""
        if self._after_cr and part:
            part, self._after_cr = part.removeprefix(b"\n"), False
        if not part:
            return
        self._after_cr = part.endswith(b"\r")
        *lines, rest = part.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._line += line
            if self._line.startswith(b"data:"):
                self._data.append(bytes(self._line[5:]).removeprefix(b" "))
            elif not self._line and self._data:
                yield b"\n".join(self._data)
                self._data.clear()
            self._line.clear()
        self._line += rest


def _answers(data: bytes, request_id: RequestId | None) -> bool:
    try:
        found = wire.decode(data, Response)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return found.id == request_id and (found.result is not None or found.error is not None)


def _response(content: bytes, status: int, request_id: RequestId | None) -> Response | None:
    """Return the response in a body; None where there is none, as in an answer of something before the server.

    An error may be of no request, where the server could not read which it was. Raises RemoteFailed.
    """
    if not content:
        return None
    try:
        found = wire.decode(content, Response)
    except (msgspec.DecodeError, UnicodeDecodeError):
        if status == 200:
            raise RemoteFailed("the answer is no JSON-RPC response") from None
        return None
    if found.result is None and found.error is None:
        return None
    if found.id != request_id and (found.id is not None or found.error is None):
        raise RemoteFailed(f"the answer is to request {found.id!r}, not to {request_id!r}"[:200])
    return found
