"""Where an answer goes: to the client, signed where that is wanted, or into a bounded buffer."""

import hashlib
from typing import Final, Protocol, final

from engram.hotkeys import epistula
from engram.http.asgi import BODILESS
from engram.http.framing import Headers
from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.refusing import Refusal, require_taken

_SIGNED_WHOLE_BYTES: Final = 65_536
"""Answers of a known length up to this are signed in their headers, others in trailers."""
_EMPTY: Final = hashlib.sha256(b"").hexdigest()
_SIGNED: Final = b"epistula-"
"""Beginning of the names of what the proxy states by its signature: a backend's own would stand beside it."""


class Sink(Protocol):
    """Takes one answer."""

    async def start(self, status: int, lines: Headers, length: int | None) -> None:
        """Take the head; `length` is the body's where it is known."""
        ...

    async def part(self, data: bytes) -> None:
        """Take a part of the body."""
        ...

    async def end(self, trailers: Headers) -> None:
        """Take the end. Without it the answer was cut."""
        ...


@final
class ClientSink:
    """Sends the answer to the client as it comes."""

    def __init__(self, request: Incoming) -> None:
        self._request = request
        self._sign = request.sign
        self._hash = hashlib.sha256()
        self._held: tuple[int, Headers, bytearray] | None = None
        self._left: int | None = None
        """Bytes of a body of known length that are still to come."""
        self._trailers = False
        self._ended = False

    async def start(self, status: int, lines: Headers, length: int | None) -> None:
        request, sign = self._request, self._sign
        lines = [*lines, *request.cors, (b"x-request-id", request.request_id.encode("ascii"))]
        trailers = length is None
        self._left = length
        if sign is not None:
            lines = [line for line in lines if not line[0].startswith(_SIGNED)]
            bodiless = request.method == "HEAD" or status in BODILESS
            if bodiless:
                lines += sign(_EMPTY)
            elif length is not None and length <= _SIGNED_WHOLE_BYTES:
                self._held = (status, lines, bytearray())
                return
            else:
                lines = [line for line in lines if line[0] != b"content-length"]
                lines.append((b"trailer", ", ".join(epistula.V2.headers).encode("ascii")))
                trailers = True
        await self._send_head(status, lines, trailers=trailers)

    async def _send_head(self, status: int, lines: Headers, *, trailers: bool) -> None:
        self._request.status, self._request.phase = status, "answer"
        self._trailers = trailers
        await self._request.send(
            {"type": "http.response.start", "status": status, "headers": lines, "trailers": trailers}
        )

    async def part(self, data: bytes) -> None:
        if self._held is not None:
            self._held[2].extend(data)
            return
        if self._sign is not None:
            self._hash.update(data)
        self._request.sent_bytes += len(data)
        if self._left is not None:
            self._left -= len(data)
            if not self._left:  # the client has all of it, and may leave before the end is noted
                self._request.answered = True
                self._ended = not self._trailers
        await self._request.send({"type": "http.response.body", "body": data, "more_body": not self._ended})
        if self._ended:
            require_taken(self._request)

    async def end(self, trailers: Headers) -> None:
        self._request.answered = True
        if self._ended:
            return
        body = b""
        if self._held is not None:
            assert self._sign is not None
            status, lines, held = self._held
            body = bytes(held)
            lines += self._sign(hashlib.sha256(body).hexdigest())
            self._request.sent_bytes += len(body)
            await self._send_head(status, lines, trailers=False)
        await self._request.send({"type": "http.response.body", "body": body, "more_body": False})
        if self._trailers:
            if self._sign is not None:
                trailers = [*trailers, *self._sign(self._hash.hexdigest())]
            await self._request.send({"type": "http.response.trailers", "headers": trailers})
        require_taken(self._request)


@final
class Buffer:
    """Keeps an answer of at most `limit` bytes; of a longer one nothing more is read."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.status = 0
        self.lines: Headers = []
        self.body = bytearray()

    async def start(self, status: int, lines: Headers, length: int | None) -> None:
        """Raise Refusal (job_result_too_large) for an answer that is declared to be too long."""
        self.status, self.lines = status, lines
        self._require_room(length or 0)

    async def part(self, data: bytes) -> None:
        """Raise Refusal (job_result_too_large) for what there is no room for."""
        self._require_room(len(self.body) + len(data))
        self.body += data

    def _require_room(self, size: int) -> None:
        if size > self._limit:
            raise Refusal("job_result_too_large", "The backend's answer is too large to be kept")

    async def end(self, trailers: Headers) -> None:
        pass
