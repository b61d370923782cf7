"""One request and its answer: the two halves of ASGI 3 (specification 2.4) over a connection.

`receive` reads the body as it is asked for; once it has ended, it waits for the client to leave (or for the answer to
end). `send` writes head and body together. What the application does wrong ends its connection only: an exception
before the answer is a 500, after its head the connection is cut; an answer without its end, or of another length
than it says, is cut and never kept.

Beyond ASGI, `http.disconnect` carries the Refused that ended a body (`"refused"`), which the application may still
answer, and `extensions["engram.stream"]` lets a handler of long bodies trade the deadline of the whole body for one
of each part.
"""

import re
from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import unquote_to_bytes

import structlog
import trio

from engram.http.asgi import BODILESS, Message, Scope
from engram.http.parser import END, NEED, Head, Refused
from engram.http.transport import Late

if TYPE_CHECKING:
    from engram.http.connection import Connection

STREAM: Final = "engram.stream"
_READ_AHEAD_BYTES: Final = 65_536
"""Of requests that a client sends before the answer to the current one."""
_PARTS_IN_A_TURN: Final = 64
"""Parts of a body that are taken without a wait before other tasks get a turn: well below 1 ms."""
_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode("ascii")) for status in HTTPStatus}
_BAD_NAME = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]|\A\Z")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING = frozenset({b"connection", b"content-length", b"date", b"keep-alive", b"transfer-encoding"})
"""Headers of an answer that the server writes itself; the application may only ask for them."""
_ASGI: Final = {"version": "3.0", "spec_version": "2.4"}

_log = structlog.get_logger("engram.http")


@final
class Cycle:
    """Runs the application for one request."""

    __slots__ = (
        "_body_taken",
        "_chunked",
        "_connection",
        "_declared",
        "_each_part",
        "_ended",
        "_head",
        "_head_out",
        "_idle",
        "_parts",
        "_received",
        "_refused",
        "_status",
        "keep",
    )

    def __init__(self, connection: "Connection", head: Head) -> None:
        self._connection = connection
        self._head = head
        self.keep = head.keep
        """Whether the connection goes on after this request."""
        self._received = head.length == 0  # the body has been read to its end
        self._body_taken = False  # the application has got a message of it
        self._each_part = False
        self._refused: Refused | None = None
        self._status = 0
        self._declared: int | None = None  # what is left of the answer's Content-Length
        self._chunked = False
        self._head_out = b""
        self._ended = False  # the answer's last part has been sent
        self._idle: trio.Event | None = None
        self._parts = 0  # of the body, since the last turn of other tasks
        if self._received:
            connection.parser.take_end()

    async def run(self) -> None:
        """Run the application; afterwards the answer is whole, or the connection is broken."""
        connection = self._connection
        try:
            await connection.server.app(self.scope(), self.receive, self.send)
        except Exception:  # noqa: BLE001 -- the seam of an application: what it throws ends its connection only
            _log.exception("application_failed", path=self._head.target.partition(b"?")[0].decode("latin-1"))
            if not self._status:
                self._refused = Refused(500, "internal", "internal error; quote the request id")
        if not self._status:
            self.keep = False
            refused = self._refused or Refused(500, "internal", "the application gave no answer")
            refused.bodyless = self._head.method == b"HEAD"
            await connection.transport.write(connection.server.refusal(refused, connection.client[0]))
        elif not self._ended:
            connection.transport.broken = True
        elif self.keep and not self._received:
            await self._discard()

    def scope(self) -> Scope:
        """The request's ASGI scope."""
        head, connection = self._head, self._connection
        path, _, query = head.target.partition(b"?")
        decoded = unquote_to_bytes(path) if b"%" in path else path
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": "1.1" if head.minor else "1.0",
            "method": head.method.decode("ascii"),
            "scheme": "https" if connection.transport.secure else "http",
            "path": decoded.decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": head.headers,
            "client": connection.client,
            "server": connection.server.address,
            "state": {},
            "extensions": {STREAM: self.take_parts},
        }

    def take_parts(self) -> None:
        """Give each part of the body a deadline of its own, instead of one to the whole."""
        self._each_part = True

    # The request's body.

    async def receive(self) -> Message:
        """The next message for the application."""
        if not self._received and self._refused is None:
            return await self._body()
        if not self._body_taken:
            self._body_taken = True
            if self._refused is None:
                return {"type": "http.request", "body": b"", "more_body": False}
        if self._refused is None:
            await self._client_leaves()
        return self._disconnect()

    def _disconnect(self) -> Message:
        return {"type": "http.disconnect", "refused": self._refused}

    async def _body(self) -> Message:
        self._start_deadline()
        try:
            event = await self._next()
            self._body_taken = True
            if event is None:
                return self._disconnect()
            self._received = event is END or self._connection.parser.take_end()
        except Refused as refused:
            self._refused = refused
            self.keep = False
            return self._disconnect()
        if self._received:
            self._connection.transport.read_due = inf
        return {"type": "http.request", "body": b"" if event is END else event, "more_body": not self._received}

    def _start_deadline(self) -> None:
        if self._each_part or not self._body_taken:
            connection = self._connection
            connection.transport.read_due = connection.server.now + connection.server.patience.body_s

    async def _next(self) -> object:
        """The next event of the body; None when the client has left within it. Raises Refused."""
        connection, parser = self._connection, self._connection.parser
        while (event := parser.next()) is NEED:
            if self._head.expects:
                self._head.expects = False
                await connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            try:
                data = await connection.transport.read()
            except Late:
                within = connection.server.patience.body_s
                raise Refused(408, "body_timeout", f"the body did not arrive within {within:g} s") from None
            except (OSError, trio.ClosedResourceError, trio.BrokenResourceError):
                data = b""
            if not data:
                self._received = self._body_taken = True
                self._ended_early()
                return None
            self._parts = 0
            parser.feed(data)
        self._parts += 1
        if self._parts > _PARTS_IN_A_TURN:
            self._parts = 0
            await trio.lowlevel.checkpoint()
        return event

    def _ended_early(self) -> None:
        self.keep = False
        self._refused = Refused(400, "incomplete_body", "the connection ended within the body")

    async def _client_leaves(self) -> None:
        """Wait until the client has left or the answer has ended; what it sends ahead is kept, within a bound."""
        connection = self._connection
        transport, parser = connection.transport, connection.parser
        while not (self._ended or transport.broken):
            if parser.held >= _READ_AHEAD_BYTES:
                self._idle = trio.Event()
                await self._idle.wait()
                return
            try:
                data = await transport.read()
            except Late:
                continue
            except (OSError, trio.ClosedResourceError, trio.BrokenResourceError):
                return
            if not data:
                return
            parser.feed(data)

    async def _discard(self) -> None:
        """Read what is left of a small body that the application did not ask for."""
        dropped, most = 0, self._connection.server.patience.discard_bytes
        self._body_taken = self._each_part = False
        self._start_deadline()
        try:
            while (event := await self._next()) is not END:
                if not isinstance(event, bytes) or (dropped := dropped + len(event)) > most:
                    self.keep = False
                    return
        except Refused:
            self.keep = False

    # The answer.

    async def send(self, message: Any) -> None:
        """Take a message of the application."""
        kind = message["type"]
        if kind == "http.response.body":
            await self._send_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start":
            self._start(message)
        elif kind == "http.response.trailers":
            raise ValueError("trailers are not offered")
        else:
            raise ValueError(f"no such ASGI message: {kind}")

    async def _send_body(self, body: bytes, more: bool) -> None:
        if not self._status:
            raise RuntimeError("http.response.body before http.response.start")
        if self._ended:
            return
        transport = self._connection.transport
        parts = self._framed(body, more)
        if self._head_out:
            parts = (self._head_out, *parts)
            self._head_out = b""
        if parts:
            await transport.write(*parts)
        if more:
            await trio.lowlevel.checkpoint()  # a client that takes all at once must not starve the others
            return
        self._ended = True
        if self._idle is not None:
            self._idle.set()
        elif self._received:
            transport.end_wait()

    def _framed(self, body: bytes, more: bool) -> tuple[bytes, ...]:
        if self._head.method == b"HEAD" or self._status in BODILESS:
            return ()
        if self._chunked:
            if not body:
                return () if more else (b"0\r\n\r\n",)
            return (b"%x\r\n" % len(body), body, b"\r\n" if more else b"\r\n0\r\n\r\n")
        if self._declared is not None:
            self._declared -= len(body)
            if self._declared < 0 or (self._declared and not more):
                self._connection.transport.broken = True
                raise RuntimeError("the answer's body is not as long as its Content-Length")
        return (body,) if body else ()

    def _start(self, message: Message) -> None:
        if self._status:
            raise RuntimeError("the response has begun already")
        status = message["status"]
        head, server = self._head, self._connection.server
        lines = [_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in message.get("headers", ()):
            name = name.lower()
            if _BAD_NAME.search(name) or _BAD_VALUE.search(value):
                raise ValueError(f"a header that cannot be sent: {name!r}")
            if name not in _FRAMING:
                lines.append(b"%b: %b\r\n" % (name, value))
            elif name == b"content-length" and status not in BODILESS:
                self._declared = int(value)
                lines.append(b"content-length: %d\r\n" % self._declared)
            elif name == b"connection" and value.lower() == b"close":
                self.keep = False
        self._status = status
        lines.append(server.date)
        if self._declared is None and status not in BODILESS:
            if head.minor:
                self._chunked = head.method != b"HEAD"
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep = False
        if self._unwanted_body() or server.draining:
            self.keep = False
        if not self.keep:
            lines.append(b"connection: close\r\n")
        elif not head.minor:
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        self._head_out = b"".join(lines)

    def _unwanted_body(self) -> bool:
        """Whether more of the request's body is to come than will be read away for good order."""
        if self._received:
            return False
        return self._head.expects or (self._head.length > self._connection.server.patience.discard_bytes)
