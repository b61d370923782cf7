"""The ASGI words that our HTTP layers share, and the two answers that are given below any framework."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, TypeAlias

import msgspec

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
HeaderLines: TypeAlias = Iterable[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")


async def respond(send: Send, status: int, body: bytes, headers: HeaderLines = ()) -> None:
    """Send a whole response; its length is declared."""
    lines = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def error_body(message: str, code: str, request_id: str | None, extra: Mapping[str, object] | None = None) -> bytes:
    """The body of every error: `{"error": message, "code": code, "request_id": …, **extra}`."""
    return msgspec.json.encode({"error": message, "code": code, "request_id": request_id, **(extra or {})})
