"""One client connection: hypercorn's HTTP/1.1 on trio, with what it lacks.

Added to hypercorn 0.18, each held by a test:
- the guards look at every request before hypercorn acts on it (it would answer `Upgrade: h2c` with 101);
- an error before the application is JSON like every other;
- a whole response leaves in one write; hypercorn writes head, body and end apart;
- idle is a deadline; hypercorn starts a task for each idle period, a seventh of its cost of a request;
- sending has a deadline, since a client that reads nothing would hold the connection, and a shutdown, for ever;
- a connection closed with a request half read lingers, so that the answer is not lost to a reset;
- the note that a client is gone never waits behind the body it sent (inbox.py);
- what follows the last request of a connection is not looked at, and never answered ahead of that request.

What is overridden here is hypercorn's inside: the version is pinned, and the tests of this folder use raw sockets.
"""

import contextlib
import re
from collections.abc import Callable
from http import HTTPStatus
from math import inf
from typing import Any, cast, final

import h11
import msgspec
import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr

from engram.http.asgi import AsgiApp, HeaderLines, Scope, error_body
from engram.http.guards import Guard, Refused
from engram.http.inbox import Inbox

_BLANK_LINES = re.compile(rb"(?:\r\n)+")
_LINGER_S = 1.0
_LINGER_BYTES = 4_194_304
_HALF_READ = frozenset({h11.SEND_BODY, h11.ERROR})
_UNANSWERED = frozenset({h11.IDLE, h11.SEND_RESPONSE, h11.SEND_BODY})

_log = structlog.get_logger("engram.http")


class Patience(msgspec.Struct, frozen=True):
    """How long a connection waits, in seconds."""

    idle_s: float
    """Between requests, and from connecting to the first byte."""
    head_s: float = 10.0
    """From the first byte of a request to the end of its headers."""
    send_s: float = 30.0
    """For the client to take what is written."""


@final
class Requests(h11.Connection):
    """h11's server side, which reads nothing behind a connection's last request and no blank lines ahead of a request.

    h11 raises for both. Raised for bytes behind the last request, the error is answered while that request still is
    worked on; RFC 9112 forbids to process them (9.6) and wants at least one blank line ignored (2.2).
    """

    _at_start = True

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        if self._at_start:
            if not self._begin():
                return h11.NEED_DATA
        elif self.their_state is h11.MUST_CLOSE and self._receive_buffer:
            return h11.PAUSED if self.our_state in _UNANSWERED else h11.NEED_DATA
        return super().next_event()

    def start_next_cycle(self) -> None:
        super().start_next_cycle()
        self._at_start = True

    def has_unread(self) -> bool:
        """Whether the peer sent more than was read of it."""
        return self.their_state in _HALF_READ or bool(self._receive_buffer)

    def _begin(self) -> bool:
        """Drop the blank lines at the start; whether anything follows them."""
        content = bytes(self._receive_buffer)
        if blank := _BLANK_LINES.match(content):
            self._receive_buffer.maybe_extract_at_most(blank.end())
            content = content[blank.end() :]
        self._at_start = content in (b"", b"\r")
        return not self._at_start


@final
class Protocol(H11Protocol):
    """hypercorn's protocol behind the guards."""

    guard: Guard
    refusals: Callable[[Refused, str], str]
    cors: Callable[[bytes], HeaderLines]
    _head: bytes = b""
    _left: int | None = None

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connection = Requests(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)

    async def handle(self, event: Event) -> None:
        try:
            await super().handle(event)
        except Refused as refused:
            await self._refuse(refused)

    async def stream_send(self, event: StreamEvent) -> None:
        """Hold back the head of a response of known length until its body is complete."""
        if isinstance(event, Response) and event.status_code >= 200:
            headers = [*event.headers, *self.config.response_headers("h11")]
            if self.context.terminated.is_set() or self.keep_alive_requests >= self.config.keep_alive_max_requests:
                headers.append((b"connection", b"close"))
            self._head = self._serialised(h11.Response(headers=headers, status_code=event.status_code))
            self._left = next((int(value) for name, value in event.headers if name == b"content-length"), None)
            if self._left is None:
                await self._flush()
        elif isinstance(event, Body):
            self._head += self._serialised(h11.Data(data=event.data))
            if self._left is not None:
                self._left -= len(event.data)
            if self._left is None or self._left > 0:
                await self._flush()
        elif isinstance(event, EndBody):
            self._head += self._serialised(h11.EndOfMessage())
            await self._flush()
        else:
            await super().stream_send(event)

    async def _flush(self) -> None:
        held, self._head = self._head, b""
        if held:
            await self.send(RawData(data=held))

    def _serialised(self, event: h11.Response | h11.Data | h11.EndOfMessage) -> bytes:
        try:
            return bytes(self.connection.send(event) or b"")
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return b""

    async def _check_protocol(self, event: h11.Request) -> None:
        try:
            self.guard.check(event)
        except Refused as refused:
            refused.bodyless = event.method == b"HEAD"
            refused.origin = next((value for name, value in event.headers if name == b"origin"), b"")
            raise

    async def _send_error_response(self, status_code: int) -> None:
        match status_code:
            case 431:
                refused = Refused(431, "headers_too_large", "the headers are too large")
                refused.origin = _origin_within(self.connection.trailing_data[0])
            case 501:
                refused = Refused(501, "not_implemented", "this transfer coding is not understood")
            case _:
                refused = Refused(status_code, "bad_request", "this is not a valid HTTP request")
        await self._refuse(refused)

    async def _refuse(self, refused: Refused) -> None:
        """Answer and close. Written past h11, which may be in any state by now and is not used again."""
        request_id = self.refusals(refused, self.client[0] if self.client else "")
        body = error_body(refused.message, refused.code, request_id)
        lines = [
            b"HTTP/1.1 %d %b" % (refused.status, HTTPStatus(refused.status).phrase.encode("ascii")),
            b"content-type: application/json",
            b"x-request-id: " + request_id.encode("ascii"),
            b"content-length: %d" % len(body),
            b"connection: close",
            *(name + b": " + value for name, value in self.config.response_headers("h11")),
            *(name + b": " + value for name, value in self.cors(refused.origin)),
        ]
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        await self.send(RawData(data=head if refused.bodyless else head + body))
        await self.send(Closed())


def _origin_within(head: bytes | bytearray) -> bytes:
    """The Origin of a head that is too large to be parsed, so that its page may read why."""
    found = re.search(rb"\r\norigin:[ \t]*([!-~]+)[ \t]*\r\n", head, re.IGNORECASE)
    return found[1] if found else b""


@final
class Tasks(TaskGroup):
    """Runs the application for each request of one connection."""

    async def spawn_app(self, app: Any, config: Config, scope: Any, send: Any) -> Any:
        inbox = Inbox()
        self.spawn(self._run, app, scope, inbox, send)
        return inbox.put

    async def _run(self, app: AsgiApp, scope: Scope, inbox: Inbox, send: Any) -> None:
        try:
            await app(scope, inbox.receive, send)
        except Exception:  # noqa: BLE001 -- the seam of an application: what it throws ends its connection only
            _log.exception("application_failed", path=scope["path"])
        finally:
            await send(None)


@final
class Connection(TCPServer):
    """Serves one accepted stream until it is closed."""

    def __init__(
        self,
        app: AsgiApp,
        config: Config,
        context: WorkerContext,
        stream: trio.SocketStream,
        guard: Guard,
        patience: Patience,
        refusals: Callable[[Refused, str], str],
        cors: Callable[[bytes], HeaderLines],
    ) -> None:
        """`refusals` is told of each request that is refused here and by whom it came; it returns the request's id.
        `cors` has the headers of every answer to a request of an origin."""
        super().__init__(cast(AppWrapper, app), config, context, {}, stream)  # type: ignore[arg-type]  # it names the TLS stream only
        self._guard = guard
        self._patience = patience
        self._refusals = refusals
        self._cors = cors
        self._reading = trio.CancelScope()
        self._idle = True
        self._closing = False
        self._cut_at = inf
        self._sending: trio.CancelScope | None = None

    async def run(self) -> None:
        """Serve until the peer leaves, a deadline passes or the server drains. Errors of the socket end it quietly."""
        try:
            socket = self.stream.socket
            client = parse_socket_addr(socket.family, socket.getpeername())
            server = parse_socket_addr(socket.family, socket.getsockname())
            async with Tasks() as tasks:
                state = ConnectionState({})
                send = self.protocol_send
                protocol = Protocol(self.app, self.config, self.context, tasks, state, False, client, server, send)
                protocol.guard = self._guard
                protocol.refusals = self._refusals
                protocol.cors = self._cors
                self.protocol = protocol  # type: ignore[assignment]  # no wrapper: there is no HTTP/2 to switch to
                with self._reading:
                    self._reading.deadline = trio.current_time() + self._patience.idle_s
                    await self._read_data()
                await protocol.handle(Closed())
        except OSError:
            pass
        finally:
            await trio.aclose_forcefully(self.stream)

    def drain(self, cut_at: float) -> None:
        """Close now if no request is being answered; otherwise after the answer (hypercorn sees to that).

        At `cut_at`, on trio's clock, also a client that does not read its answer is given up.
        """
        self._cut_at = cut_at
        if self._sending is not None:
            self._sending.deadline = min(self._sending.deadline, cut_at)
        if self._idle:
            self._reading.cancel()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Updated):
            self._idle = event.idle
            self._reading.deadline = trio.current_time() + self._patience.idle_s if event.idle else inf
            if event.idle and self.context.terminated.is_set():
                self._reading.cancel()
        elif isinstance(event, Closed):
            await self._begin_close()
            await self.protocol.handle(Closed())

    async def _write(self, data: bytes) -> None:
        if self._closing:
            return
        async with self.send_lock:
            deadline = min(trio.current_time() + self._patience.send_s, self._cut_at)
            with trio.CancelScope(shield=True, deadline=deadline) as self._sending:
                try:
                    await self.stream.send_all(data)
                    return
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                finally:
                    self._sending = None
            await trio.aclose_forcefully(self.stream)
        await self.protocol.handle(Closed())

    async def _read_data(self) -> None:
        unread = 0
        while unread < _LINGER_BYTES:
            try:
                data = await self.stream.receive_some(MAX_RECV)
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                return
            if not data:
                return
            if self._closing:
                unread += len(data)
                continue
            if self._idle and not data.isspace():
                self._reading.deadline = min(self._reading.deadline, trio.current_time() + self._patience.head_s)
            await self.protocol.handle(RawData(bytes(data)))

    async def _begin_close(self) -> None:
        """End our side. What the peer still sends of its request is read for a while, so that no reset overtakes
        the answer."""
        if self._closing:
            return
        self._closing = True
        if self.protocol.connection.has_unread():  # type: ignore[attr-defined]  # as above: no wrapper
            self._reading.deadline = trio.current_time() + _LINGER_S
            async with self.send_lock:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self.stream.send_eof()
        else:
            self._reading.cancel()
