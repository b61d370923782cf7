"""ASGI types and helpers that our HTTP layers share below any framework."""

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
BODILESS = frozenset({204, 304})
"""Statuses without a body, for which no Content-Length is sent (RFC 9110, 8.6)."""


class Sender:
    """An ASGI `send` that also takes a whole answer in one call."""

    __slots__ = ()

    @property
    def broken(self) -> bool:
        """Whether the client takes no more: it may not have received all that was sent."""
        return False

    def __call__(self, message: Any) -> Awaitable[None]:
        """Send a message of the application."""
        raise NotImplementedError

    def respond(self, status: int, headers: HeaderLines, body: bytes) -> Awaitable[None]:
        """Send a whole answer; its length is declared unless the status never has a body."""
        raise NotImplementedError


def respond(send: Send, status: int, body: bytes, headers: HeaderLines = ()) -> Awaitable[None]:
    """Send a whole response; its length is declared unless the status never has a body (RFC 9110, 8.6)."""
    return send.respond(status, headers, body) if isinstance(send, Sender) else _in_parts(send, status, headers, body)


async def _in_parts(send: Send, status: int, headers: HeaderLines, body: bytes) -> None:
    lines = [*headers] if status in BODILESS else [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def broken(send: Send) -> bool:
    """Return whether the client is known to take no more; False where `send` does not tell."""
    return isinstance(send, Sender) and send.broken


def header_lines(pairs: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return headers as ASGI has them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


def error_body(message: str, code: str, request_id: str | None, extra: Mapping[str, object] | None = None) -> bytes:
    """Return the body of every error: `{"error": message, "code": code, "request_id": …, **extra}`."""
    return msgspec.json.encode({"error": message, "code": code, "request_id": request_id, **(extra or {})})
