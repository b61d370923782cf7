"""WebSocket connections for ASGI applications (RFC 6455, by wsproto), over a connection whose head asked for one.

    connecting --accept--> open --close of either side, end of input, drain--> closed
               --close--> 403    --Refused raised by the application--> its status
               --an answer of its own (ASGI's extension websocket.http.response)--> that answer

A client that sends nothing for `idle_s` is pinged, and closed with 1011 after another `idle_s` of silence. A message
beyond 1 MiB closes with 1009. While the server drains, a handshake is answered 503 and an open connection is
closed with 1012 (restart). One that waits for its client counts as idle since that last sent something: it makes room
like an idle connection. The application's messages are written as they come, one frame each; several tasks may send,
and one may receive meanwhile.
"""

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, Final, final

import structlog
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from engram.http.asgi import Message, Scope
from engram.http.errors import TooLarge
from engram.http.head import Head, Refused
from engram.http.messages import Messages
from engram.http.transport import Late

if TYPE_CHECKING:
    from engram.http.connection import Connection

DENIAL: Final = "websocket.http.response"
"""ASGI's extension by which an application answers a handshake with a response of its own."""
_EARLY_BYTES: Final = 65_536
"""Bytes of frames that are buffered before the application accepts."""
_RESTARTING: Final = 1012
_TOO_LARGE: Final = 1009
_GONE: Final = 1006
_SILENT: Final = 1011
_BAD: Final = 1002
_REFUSED: Final = 1008

_log = structlog.get_logger("engram.http")


@final
class WebSocket:
    """Runs the application for one WebSocket, then closes the connection."""

    keep = False

    def __init__(self, connection: "Connection", head: Head, scope: Scope) -> None:
        self._connection = connection
        self._scope: Scope = {**scope, "type": "websocket", "subprotocols": [], "extensions": {DENIAL: {}}}
        self._scope["scheme"] = "wss" if connection.transport.secure else "ws"
        self._wire = WSConnection(ConnectionType.SERVER)
        self._events: deque[Event] = deque()
        self._head = head
        self._accepted = False
        self._denied = False  # whether the application answers the handshake by a response of its own
        self._connect_sent = False  # whether the application received websocket.connect
        self._closed: int | None = None
        self._messages = Messages()
        self._pinged = False
        self._writing = trio.Lock()

    async def run(self) -> None:
        """Shake hands, run the application, close."""
        connection = self._connection
        try:
            self._wire.initiate_upgrade_connection(self._head.headers, self._head.target.decode("ascii"))
        except RemoteProtocolError:
            raise Refused(400, "bad_websocket", "this is not a valid WebSocket handshake") from None
        if connection.server.draining:
            raise Refused(503, "restarting", "the server is restarting; connect again in a moment")
        for event in self._wire.events():
            if isinstance(event, Request):
                self._scope["subprotocols"] = list(event.subprotocols)
        try:
            await connection.server.app(self._scope, self.receive, self.send)
        except Refused as refused:
            if self._unanswered:
                raise
            await self._close(_REFUSED, refused.message)
        except Exception:  # noqa: BLE001 -- the seam of an application: what it throws ends its connection only
            _log.exception("application_failed", path=self._scope["path"])
            if self._unanswered:
                raise Refused(500, "internal", "internal error; quote the request id") from None
            await self._close(_SILENT)
        if self._unanswered:
            raise Refused(500, "internal", "the application gave no answer")
        await self._close(1000)

    @property
    def _unanswered(self) -> bool:
        return not self._accepted and not self._denied and self._closed is None

    async def receive(self) -> Message:
        """Return the next message for the application."""
        if not self._connect_sent:
            self._connect_sent = True
            return {"type": "websocket.connect"}
        while self._closed is None:
            while self._events:
                if (message := await self._taken(self._events.popleft())) is not None:
                    return message
            if self._closed is None:
                await self._read()
        return {"type": "websocket.disconnect", "code": self._closed, "reason": ""}

    async def _read(self) -> None:
        connection = self._connection
        transport = connection.transport
        if self._accepted and connection.server.draining:
            await self._close(_RESTARTING)
            return
        transport.read_due = connection.server.now + connection.server.patience.idle_s
        if connection.body_since is None:  # a ping does not make it younger
            connection.body_since = next(connection.server.turns)
        try:
            data = await transport.read()
        except Late:
            if self._accepted and self._closed is None and not connection.server.draining:
                await self._look_alive()
            return
        except (OSError, trio.ClosedResourceError, trio.BrokenResourceError):
            data = b""
        self._pinged, connection.body_since = False, None
        if not self._accepted:
            connection.parser.feed(data)
        if not data or connection.parser.held > _EARLY_BYTES:
            self._closed = _GONE
        elif self._accepted:
            await self._feed(data)

    async def _feed(self, data: bytes) -> None:
        try:
            self._wire.receive_data(data)
            self._events.extend(self._wire.events())
        except RemoteProtocolError:
            await self._close(_BAD)

    async def _look_alive(self) -> None:
        if self._pinged:
            await self._close(_SILENT)
        else:
            self._pinged = True
            await self._write(Ping())

    async def _write(self, event: Event) -> None:
        """Send an event; drop it when the client has closed or disconnected."""
        with contextlib.suppress(LocalProtocolError):
            await self._put(event)

    async def _put(self, event: Event) -> None:
        """Send an event, whole before the next task's. Raises LocalProtocolError where it is too late for it."""
        transport = self._connection.transport
        try:
            self._writing.acquire_nowait()
        except trio.WouldBlock:
            await self._writing.acquire()
        try:
            await transport.write(self._wire.send(event))
        finally:
            self._writing.release()
        if transport.broken and self._closed is None:
            self._closed = _GONE
            transport.end_wait()

    async def _taken(self, event: Event) -> Message | None:
        if isinstance(event, Ping):
            await self._write(event.response())
        elif isinstance(event, CloseConnection):
            if self._closed is None:
                self._closed = event.code
                await self._write(event.response())
        elif isinstance(event, TextMessage | BytesMessage):
            return await self._joined(event)
        elif not isinstance(event, Pong):
            _log.debug("websocket_event_ignored", event_type=type(event).__name__)
        return None

    async def _joined(self, event: TextMessage | BytesMessage) -> Message | None:
        try:
            joined = self._messages.joined(event)
        except TooLarge:
            await self._close(_TOO_LARGE)
            return None
        if joined is None:
            return None
        text, data = (joined, None) if isinstance(joined, str) else (None, joined)
        return {"type": "websocket.receive", "bytes": data, "text": text}

    async def send(self, message: Any) -> None:
        """Take a message of the application."""
        kind = message["type"]
        if self._closed is not None:
            return
        if kind == "websocket.send":
            text, data = message.get("text"), message.get("bytes")
            if not self._accepted:
                raise RuntimeError("websocket.send before websocket.accept")
            await self._write(TextMessage(data=text) if text is not None else BytesMessage(data=data))
        elif kind == "websocket.accept":
            accept = AcceptConnection(
                subprotocol=message.get("subprotocol"), extra_headers=list(message.get("headers", ()))
            )
            await self._put(accept)
            self._accepted = True
            if early := self._connection.parser.take_all():
                await self._feed(early)
        elif kind == "websocket.close" and not self._accepted:
            self._closed = _GONE
            await self._put(RejectConnection(status_code=403))
        elif kind == f"{DENIAL}.start" and not self._accepted:
            date = self._connection.server.date.removeprefix(b"date: ").rstrip()
            lines = [*message.get("headers", ()), (b"date", date), (b"connection", b"close")]
            self._denied = True
            rejection = RejectConnection(status_code=message["status"], headers=lines, has_body=True)
            await self._put(rejection)
        elif kind == f"{DENIAL}.body" and self._denied:
            finished = not message.get("more_body", False)
            if finished:
                self._closed = _GONE
            await self._put(RejectData(data=message.get("body", b""), body_finished=finished))
        elif kind == "websocket.close":
            await self._close(message.get("code") or 1000, message.get("reason") or "")
        else:
            raise ValueError(f"no such ASGI message: {kind}")

    async def _close(self, code: int, reason: str = "") -> None:
        if self._closed is not None or not self._accepted:
            return
        self._closed = code
        await self._write(CloseConnection(code=code, reason=reason))
