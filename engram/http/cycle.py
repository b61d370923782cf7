"""One request and its answer: the two halves of ASGI 3 (specification 2.3) over a connection.

`receive` reads the body on demand; after its end it waits for the client to disconnect (or for the answer to end).
`send` writes head and body together. Trailers (`http.response.trailers`) end the answer where its head announced them;
those of a request come with the last message of its body (`"trailers"`, beyond ASGI). A faulty application ends only
its own connection: an exception before the answer is a 500, after its head the connection is cut; an answer that is
incomplete or does not match its declared length is cut, and its connection is not reused.

Beyond ASGI: `http.disconnect` carries the Refused that ended a body (`"refused"`), which may still be answered;
`extensions["engram.stream"]` sets a deadline for each part of a body instead of one for the whole, and
`extensions["engram.hung_up"]` waits until the client has left, also while the rest of its body is not read.
"""

from collections.abc import Awaitable
from math import inf
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import unquote_to_bytes

import structlog
import trio

from engram.http.answer import Answer
from engram.http.asgi import HeaderLines, Message, Scope, Sender
from engram.http.framing import CHUNKED
from engram.http.head import Head, Refused
from engram.http.parser import END, NEED
from engram.http.transport import LATE, Late

if TYPE_CHECKING:
    from engram.http.connection import Connection

STREAM: Final = "engram.stream"
HUNG_UP: Final = "engram.hung_up"
REST_S: Final = 2.0
"""While the server drains, the time for the rest of a body, or for each part of one that is read in parts."""
_READ_AHEAD_BYTES: Final = 65_536
"""Bytes of pipelined requests that are read before the current one is answered."""
_PARTS_IN_A_TURN: Final = 64
"""Parts of a body that are handled in a row before other tasks run: well below 1 ms."""

_log = structlog.get_logger("engram.http")


@final
class Cycle(Sender):
    """Runs the application for one request; it is the `send` of that application."""

    __slots__ = (
        "_answer",
        "_body_taken",
        "_connection",
        "_each_part",
        "_ended",
        "_head",
        "_idle",
        "_parts",
        "_received",
        "_refused",
    )

    def __init__(self, connection: "Connection", head: Head) -> None:
        self._connection = connection
        self._head = head
        self._answer = Answer(head)
        self._received = head.length == 0  # the body has been read to its end
        self._body_taken = False  # the application has received a message of it
        self._each_part = False
        self._refused: Refused | None = None
        self._ended = False  # the answer's last part has been sent
        self._idle: trio.Event | None = None
        self._parts = 0  # of the body, since the last turn of other tasks
        if self._received:
            connection.parser.skip_end()

    @property
    def keep(self) -> bool:
        """Whether the connection is kept open after this request."""
        return self._answer.keep

    async def run(self) -> None:
        """Run the application; afterwards the answer is complete or the connection is broken."""
        connection = self._connection
        try:
            await connection.server.app(self.scope(), self.receive, self)
        except Exception:  # noqa: BLE001 -- the seam of an application: what it throws ends its connection only
            _log.exception("application_failed", path=self._head.target.partition(b"?")[0].decode("latin-1"))
            if not self._answer.out:
                self._refused = Refused(500, "internal", "internal error; quote the request id")
        if not self._answer.out:
            self._answer.keep = False
            refused = self._refused or Refused(500, "internal", "the application gave no answer")
            refused.bodyless = self._head.method == b"HEAD"
            await connection.transport.write(connection.server.refusal(refused, connection.client[0]))
        elif not self._ended:
            connection.transport.broken = True
        elif self._answer.keep and not self._received:
            await self._discard()

    def scope(self) -> Scope:
        """Return the request's ASGI scope."""
        head, connection = self._head, self._connection
        path, _, query = head.target.partition(b"?")
        decoded = path if path.find(b"%") < 0 else unquote_to_bytes(path)  # `in` costs ten times as much
        return {
            **connection.server.scope,
            "http_version": "1.1" if head.minor else "1.0",
            "method": head.method.decode("ascii"),
            "path": decoded.decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": query,
            "headers": head.headers,
            "client": connection.client,
            "extensions": {
                STREAM: self.take_parts,
                HUNG_UP: connection.transport.hung_up,
                "http.response.trailers": {},
            },
        }

    def take_parts(self) -> None:
        """Set a deadline for each part of the body instead of one for the whole."""
        self._each_part = True

    # The request's body.

    async def receive(self) -> Message:
        """Return the next message for the application."""
        if not self._received and self._refused is None:
            return await self._body()
        if not self._body_taken:
            self._body_taken = True
            if self._refused is None:
                return {"type": "http.request", "body": b"", "more_body": False}
        if self._refused is None:
            await self._client_leaves()
        return {"type": "http.disconnect", "refused": self._refused}

    async def _body(self) -> Message:
        self._start_deadline()
        try:
            event = await self._next()
            self._body_taken = True
            if event is None:
                return {"type": "http.disconnect", "refused": self._refused}
            self._received = event is END or self._connection.parser.take_end()
        except Refused as refused:
            self._refused = refused
            self._answer.keep = False
            return {"type": "http.disconnect", "refused": self._refused}
        if self._received:
            self._connection.transport.read_due = inf
        if event is END:
            trailers = self._connection.parser.trailers if self._head.length == CHUNKED else []
            return {"type": "http.request", "body": b"", "more_body": False, "trailers": trailers}
        return {"type": "http.request", "body": event, "more_body": not self._received}

    def _start_deadline(self) -> None:
        if self._each_part or not self._body_taken:
            server = self._connection.server
            body_s = server.patience.body_s
            self._connection.transport.read_due = server.now + (min(body_s, REST_S) if server.draining else body_s)

    async def _next(self) -> object:
        """Return the next event of the body; None when the client disconnected within it. Raises Refused."""
        connection, parser = self._connection, self._connection.parser
        while (event := parser.next()) is NEED:
            if self._head.expects and not self._answer.out:
                self._head.expects = False
                await connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if not self._answer.status or self._ended:
                connection.body_since = next(connection.server.turns)
            try:
                data = await connection.transport.read()
            except Late:
                data = self._come_in_time()
            except (OSError, trio.ClosedResourceError, trio.BrokenResourceError):
                data = b""
            finally:
                connection.body_since = None
            if not data:
                self._received = self._body_taken = True
                self._answer.keep = False
                self._refused = Refused(400, "incomplete_body", "the connection ended within the body")
                return None
            self._parts = 0
            parser.feed(data)
        self._parts += 1
        if self._parts > _PARTS_IN_A_TURN:
            self._parts = 0
            await trio.lowlevel.checkpoint()
        return event

    def _come_in_time(self) -> bytes:
        """Return what had arrived when the time of the body was over, however late it is asked for. Raises Refused."""
        transport, server = self._connection.transport, self._connection.server
        try:
            data = transport.read_now()
        except OSError:
            return b""
        if not data:
            within = f"within {server.patience.body_s:g} s" if not server.draining else "before the server's end"
            raise Refused(408, "body_timeout", f"the body did not arrive {within}")
        transport.read_due = LATE
        return data

    async def _client_leaves(self) -> None:
        """Wait until the client disconnects or the answer ends; keep pipelined input, within a bound."""
        transport, parser = self._connection.transport, self._connection.parser
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
        """Discard the rest of a small body that the application did not read."""
        dropped, most = 0, self._connection.server.patience.discard_bytes
        self._body_taken = self._each_part = False
        self._start_deadline()
        try:
            while (event := await self._next()) is not END:
                if not isinstance(event, bytes) or (dropped := dropped + len(event)) > most:
                    self._answer.keep = False
                    return
        except Refused:
            self._answer.keep = False

    # The answer.

    @property
    def broken(self) -> bool:
        """Whether the client takes no more: it may not have received all that was sent."""
        return self._connection.transport.broken

    async def __call__(self, message: Any) -> None:
        """Send a message of the application."""
        kind, headers = message["type"], message.get("headers", ())
        if kind == "http.response.start":
            self._start(message["status"], headers, None, trailers=bool(message.get("trailers", False)))
        elif kind == "http.response.body":
            await self._send(message.get("body", b""), more=message.get("more_body", False))
        elif kind == "http.response.trailers":
            await self._send_trailers(headers, message.get("more_trailers", False))
        else:
            raise ValueError(f"no such ASGI message: {kind}")

    def respond(self, status: int, headers: HeaderLines, body: bytes) -> Awaitable[None]:
        """Send a whole answer; its length is declared unless the status never has a body."""
        self._start(status, headers, len(body))
        return self._send(body, more=False)

    def _start(self, status: int, headers: HeaderLines, length: int | None, *, trailers: bool = False) -> None:
        server, head = self._connection.server, self._head
        if server.draining and not self._connection.parser.holds_request():
            self._answer.keep = False
        if not self._received and (head.expects or head.length > server.patience.discard_bytes):
            self._answer.keep = False  # the rest of the request's body is too long to be read away
        self._answer.start(status, headers, length, server.date, trailers=trailers)

    async def _send(self, body: bytes, *, more: bool) -> None:
        if not self._answer.status:
            raise RuntimeError("http.response.body before http.response.start")
        if self._ended:
            return
        transport = self._connection.transport
        if parts := self._answer.framed(body, more=more):
            await transport.write(*parts)
        if more:
            if transport.broken:
                self._end_waits()
            await trio.lowlevel.checkpoint()  # a client that takes all at once must not starve the others
        elif not self._answer.awaits_trailers:
            self._end()

    async def _send_trailers(self, headers: HeaderLines, more: bool) -> None:
        if more or not self._answer.awaits_trailers:
            raise RuntimeError("http.response.trailers is sent once, after a head that announced it")
        if parts := self._answer.trailers(headers):
            await self._connection.transport.write(*parts)
        self._end()

    def _end(self) -> None:
        self._ended = True
        if self._received or self._connection.transport.broken:
            self._end_waits()

    def _end_waits(self) -> None:
        """Wake the task that waits for the client, so that it sees that the answer has ended or is not read."""
        if self._idle is not None:
            self._idle.set()
        self._connection.transport.end_wait()
