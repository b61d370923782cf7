"""WebSockets, passed on message by message (RFC 6455): the handshake is verified as a GET without a body, its uuid is
used up, and the open socket counts for its key until it closes.

    client's handshake -> proven -> backend's handshake --101--> open --close of either side--> the same close
                                            |                     +--its group is removed, and drained--> 1001
                                            +-- anything else --> 502

The signature covers neither method nor path: only the replay guard keeps a handshake from being sent elsewhere.
"""

from collections import deque
from typing import Any, Final, final

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
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from engram.http.asgi import Receive, Scope, Send
from engram.http.errors import NotSent
from engram.http.forwarding import Forwarding
from engram.http.transport import Late
from engram.proxy.app import ProxyApp
from engram.proxy.exchange.heads import request_lines
from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.refusing import Refusal
from engram.proxy.plan import Plan
from engram.proxy.routing import Matched
from engram.proxy.state import State

MESSAGE_BYTES: Final = 1_048_576
_GOING_AWAY: Final = 1001
_TOO_LARGE: Final = 1009
_ABNORMAL: Final = 1006
_OWN_HEADERS: Final = frozenset(
    {b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions", b"sec-websocket-protocol", b"host"}
)


@final
class Tunnel:
    """Passes WebSockets on by the plan in force."""

    def __init__(self, app: ProxyApp, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send, request: Incoming, plan: Plan) -> None:
        matched = plan.routes.find("GET", request.raw_path)
        assert isinstance(matched, Matched), "the application has found it"
        body, slot = await self._app.prove(request, plan, 0, whole=True)
        body.close()
        place = None
        try:
            place = await self._state.admission.place(request)
            await self._pass_on(scope, receive, send, request, plan, matched)
        finally:
            if place is not None:
                place.release()
            slot.release()

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, request: Incoming, plan: Plan, matched: Matched
    ) -> None:
        route, group = matched.route, plan.groups[matched.route.backend]
        request.phase = "connect"
        try:
            async with group.connected(route.connect_s, 0.0, bodyless=False) as (server, forwarding):
                request.backend = server.url
                target = group.target(server)
                path = target.path.rstrip("/").encode("ascii") + matched.path
                if request.query:
                    path += b"?" + request.query
                backend = Backend(forwarding, server.url)
                lines = request_lines(request.headers, request.origin, target.authority, None)
                extra = [line for line in lines if line[0] not in _OWN_HEADERS]
                wait_s = route.first_byte_s or plan.settings.services.request_timeout_s
                subprotocol = await backend.shake_hands(
                    target.authority, path.decode("ascii"), list(scope["subprotocols"]), extra, wait_s
                )
                group.succeeded(server)
                await receive()  # websocket.connect
                await send({"type": "websocket.accept", "subprotocol": subprotocol})
                request.phase, request.status = "answer", 101
                code = await _both_ways(receive, send, backend, request, group.retired, route.drain_s)
                request.code, request.detail = "done", f"closed with {code}"
        except NotSent as error:
            raise Refusal("not_connected", "Error connecting to backend service", message=str(error)) from error


@final
class Backend:
    """The backend's side of one WebSocket."""

    def __init__(self, forwarding: Forwarding, url: str) -> None:
        self._transport = forwarding.transport
        self._wire = WSConnection(ConnectionType.CLIENT)
        self._url = url
        self._events: deque[Event] = deque()
        self._parts: list[Any] = []
        self._size = 0
        self._sending = trio.Lock()

    async def shake_hands(
        self, host: str, path: str, subprotocols: list[str], lines: list[tuple[bytes, bytes]], wait_s: float
    ) -> str | None:
        """Ask for the WebSocket; return the subprotocol that was chosen. Raises Refusal."""
        await self._send(Request(host=host, target=path, subprotocols=subprotocols, extra_headers=lines))
        with trio.CancelScope(deadline=trio.current_time() + wait_s):
            match await self._next():
                case AcceptConnection(subprotocol=subprotocol):
                    return subprotocol
                case RejectConnection(status_code=status):
                    message = f"the backend answered the handshake with {status}"
                    raise Refusal("backend_cut", "Error connecting to backend service", message=message)
                case _:
                    message = "the backend did not answer the handshake"
                    raise Refusal("backend_cut", "Error connecting to backend service", message=message)
        raise Refusal("first_byte_late", "Upstream timed out", message=f"no handshake within {wait_s:g} s")

    async def message(self) -> str | bytes | int:
        """Return the next message, or the code with which the backend closed."""
        while True:
            event = await self._next()
            match event:
                case None:
                    return _ABNORMAL
                case CloseConnection(code=code):
                    await self._send(event.response())
                    return code
                case Ping():
                    await self._send(event.response())
                case TextMessage() | BytesMessage():
                    if (message := self._joined(event)) is not None:
                        return message
                    if self._size > MESSAGE_BYTES:
                        await self.close(_TOO_LARGE)
                        return _TOO_LARGE
                case _:
                    assert isinstance(event, Pong | RejectConnection | AcceptConnection | Request | Event)

    def _joined(self, event: TextMessage | BytesMessage) -> str | bytes | None:
        data = event.data
        self._size += len(data)
        if self._size > MESSAGE_BYTES:
            return None
        self._parts.append(data)
        if not event.message_finished:
            return None
        parts, self._parts, self._size = self._parts, [], 0
        if isinstance(event, TextMessage):
            return "".join(parts)
        return b"".join(bytes(part) for part in parts)

    async def send(self, message: str | bytes) -> None:
        """Send a message."""
        await self._send(TextMessage(data=message) if isinstance(message, str) else BytesMessage(data=message))

    async def close(self, code: int, reason: str = "") -> None:
        """Close with a code."""
        shown = code if code not in (1005, 1006, 1015) else 1001
        await self._send(CloseConnection(code=shown, reason=reason))

    async def _send(self, event: Event) -> None:
        try:
            data = self._wire.send(event)
        except LocalProtocolError:
            return  # it has closed already
        async with self._sending:
            await self._transport.write(data)

    async def _next(self) -> Event | None:
        """Return the next event; None when the backend's connection ended or broke the protocol."""
        while not self._events:
            try:
                data = await self._transport.read()
            except (OSError, Late, trio.ClosedResourceError):
                return None
            if not data:
                return None
            try:
                self._wire.receive_data(data)
                self._events.extend(self._wire.events())
            except RemoteProtocolError:
                return None
        return self._events.popleft()


async def _both_ways(
    receive: Receive, send: Send, backend: Backend, request: Incoming, retired: trio.Event, drain_s: float
) -> int:
    """Pass messages until either side closes, or the group is removed and its time is over; return the code."""
    closed: list[int] = []
    async with trio.open_nursery() as nursery:

        async def outward() -> None:
            while (message := await receive())["type"] == "websocket.receive":
                data = message["text"] if message["text"] is not None else message["bytes"]
                request.received_bytes += len(data)
                await backend.send(data)
            closed.append(message.get("code") or _ABNORMAL)
            await backend.close(closed[0], message.get("reason") or "")
            nursery.cancel_scope.cancel()

        async def inward() -> None:
            while not isinstance(message := await backend.message(), int):
                request.sent_bytes += len(message)
                key = "text" if isinstance(message, str) else "bytes"
                await send({"type": "websocket.send", key: message})
            closed.append(message)
            shown = message if message not in (1005, 1006, 1015) else 1011
            await send({"type": "websocket.close", "code": shown})
            nursery.cancel_scope.cancel()

        async def removed() -> None:
            await retired.wait()
            await trio.sleep(drain_s)
            closed.append(_GOING_AWAY)
            await send({"type": "websocket.close", "code": _GOING_AWAY})
            await backend.close(_GOING_AWAY)
            nursery.cancel_scope.cancel()

        nursery.start_soon(outward)
        nursery.start_soon(inward)
        nursery.start_soon(removed)
    return closed[0]
