"""The proxy's own answers, and the exceptions that end a request with one."""

import hashlib
from collections.abc import Iterable, Mapping
from math import ceil
from typing import Final, final

import msgspec

from engram.http.asgi import BODILESS, broken, respond
from engram.http.errors import NoPlace, NotSent
from engram.http.websocket import DENIAL
from engram.proxy.endings import TABLE
from engram.proxy.exchange.incoming import Incoming

JSON: Final = (b"content-type", b"application/json")
_COME_AGAIN: Final = (429, 503)
"""Statuses whose answers always say when to come again."""
_RETRY_S: Final = 5.0
_UNCACHED: Final = (b"cache-control", b"no-store")
_PART_BYTES: Final = 65_536
"""Longer answers are sent in parts of this size, each of which counts as sent once the client's side has taken it."""


@final
class Refusal(Exception):
    """The request ends with an answer of the proxy.

    `code` is a row of the endings, `detail` what the original's clients read; `reason` is a word for programs, and
    `cause` is for the operator alone.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        reason: str = "",
        retry_after_s: float | None = None,
        extra: Mapping[str, object] | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
        message: str = "",
        cause: str = "",
    ) -> None:
        super().__init__(f"{code}: {cause or message or detail}")
        self.code = code
        self.status = TABLE[code].status
        self.detail = detail
        self.reason = reason or code
        self.message = message or detail
        self.cause = cause or self.message
        self.extra: Mapping[str, object] = extra or {}
        self.headers = list(headers)
        if retry_after_s is None and self.status in _COME_AGAIN:
            retry_after_s = _RETRY_S
        if retry_after_s is not None:
            self.headers.append((b"retry-after", b"%d" % max(1, ceil(retry_after_s))))


@final
class Gone(Exception):
    """The client has left."""


def unreached(error: NotSent | NoPlace, connect_s: float) -> Refusal:
    """Return the refusal of a request for which there was no connection within `connect_s`.

    What went wrong names the server, and is the operator's alone.
    """
    if isinstance(error, NoPlace):
        text = "all connections that the backend may have are in use, and none became free in time"
        return Refusal("backend_full", "The backend is busy", retry_after_s=connect_s, message=text, cause=str(error))
    text = "no connection to the backend could be made"
    return Refusal("not_connected", "Error connecting to backend service", message=text, cause=str(error))


def body_of(refusal: Refusal, request_id: str) -> bytes:
    """Return the body: `detail` as the original has it, and for others what Engram's errors have."""
    return msgspec.json.encode(
        {
            "detail": refusal.detail,
            "error": refusal.message,
            "code": refusal.reason,
            "request_id": request_id,
            **refusal.extra,
        }
    )


async def refuse(request: Incoming, refusal: Refusal) -> None:
    """Send a refusal."""
    lines = [JSON, *refusal.headers]
    if refusal.status == 401:
        lines.append((b"www-authenticate", b'Epistula realm="miner"'))
    await answer(request, refusal.status, body_of(refusal, request.request_id), lines)


async def answer(request: Incoming, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send a whole answer of the proxy itself; to a WebSocket handshake it is the refusal.

    Raises Gone when the client is known not to have received all of it.
    """
    request.status = status
    lines = [*headers, *request.cors, (b"x-request-id", request.request_id.encode("ascii"))]
    if not any(name == b"cache-control" for name, _ in lines):
        lines.append(_UNCACHED)
    if request.sign is not None:
        lines = [line for line in lines if not line[0].startswith(b"epistula-")]
        lines += request.sign(hashlib.sha256(b"" if request.method == "HEAD" else body).hexdigest())
    request.answered = True
    if request.is_websocket:
        lines.append((b"content-length", b"%d" % len(body)))
        request.sent_bytes += len(body)
        await request.send({"type": f"{DENIAL}.start", "status": status, "headers": lines})
        await request.send({"type": f"{DENIAL}.body", "body": body})
        return
    if request.method == "HEAD" or status in BODILESS or len(body) <= _PART_BYTES:
        await respond(request.send, status, body, lines)
        require_taken(request)
        request.sent_bytes += 0 if request.method == "HEAD" else len(body)
        return
    lines.append((b"content-length", b"%d" % len(body)))
    await request.send({"type": "http.response.start", "status": status, "headers": lines})
    for at in range(0, len(body), _PART_BYTES):
        part = body[at : at + _PART_BYTES]
        await request.send({"type": "http.response.body", "body": part, "more_body": at + _PART_BYTES < len(body)})
        require_taken(request)
        request.sent_bytes += len(part)


def require_taken(request: Incoming) -> None:
    """Raise Gone when the client is known not to have received all that was sent to it."""
    if broken(request.send):
        request.code, request.answered = "client_gone_answer", False
        raise Gone
