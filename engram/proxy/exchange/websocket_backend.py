"""A backend's side of one WebSocket (RFC 6455, by wsproto): the handshake, messages joined from fragments, and an end
for a backend that is silent or takes nothing.

    open --nothing received for idle_s--> pinged --again--> given up (1011)
         --nothing taken for idle_s-----------------------> given up (1011)
"""

import re
from collections import deque
from math import inf
from typing import Final, final

import msgspec
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from engram.http.errors import TooLarge
from engram.http.forwarding import Forwarding
from engram.http.framing import Headers
from engram.http.messages import Messages
from engram.http.transport import Late
from engram.proxy.exchange.refusing import Refusal

ABNORMAL: Final = 1006
_TOO_LARGE: Final = 1009
_GIVEN_UP: Final = 1011
_CLOSING_S: Final = 2.0
"""Seconds for a backend to take the frame that closes."""
_REJECTED_BYTES: Final = 65_536
"""Of the body of a backend's answer that is no 101; a longer one is refused."""
_INTERIM_BYTES: Final = 65_536
_INTERIM: Final = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9][0-9]")
_BEGINNING: Final = re.compile(rb"(?:H(?:T(?:T(?:P(?:/(?:1(?:\.(?:[01](?: (?:1[0-9]?)?)?)?)?)?)?)?)?)?)?")
"""What may still become an interim head."""


class Handshake(msgspec.Struct, frozen=True):
    """What a backend is asked for."""

    host: str
    path: str
    subprotocols: list[str]
    lines: Headers
    """Without those of the handshake itself."""


class RefusedHandshake(msgspec.Struct, frozen=True):
    """What a backend answered to a handshake instead of 101."""

    status: int
    lines: Headers
    body: bytes


@final
class WebSocketBackend:
    """One connection to a backend."""

    def __init__(self, forwarding: Forwarding, idle_s: float) -> None:
        """`idle_s`: seconds of silence until the backend is pinged, and again until it is given up; and seconds in
        which it must take what is sent.
        """
        self._transport = forwarding.transport
        self._wire = WSConnection(ConnectionType.CLIENT)
        self._idle_s = idle_s
        self._events: deque[Event] = deque()
        self._messages = Messages()
        self._sending = trio.Lock()
        self._ended = False  # the backend has ended its side, and not by a fault
        self.given_up = ""
        """Why the backend was given up; empty while it was not."""

    async def shake_hands(self, handshake: Handshake) -> str | RefusedHandshake | None:
        """Ask for the WebSocket; return the subprotocol that was chosen, or the other answer. Raises Refusal."""
        await self._send(
            Request(
                host=handshake.host,
                target=handshake.path,
                subprotocols=handshake.subprotocols,
                extra_headers=handshake.lines,
            )
        )
        await self._pass_over_interim()
        match await self._next():
            case AcceptConnection(subprotocol=subprotocol):
                return subprotocol
            case RejectConnection() as rejected:
                return await self._rest_of(rejected)
            case _:
                raise _cut("the backend did not answer the handshake")

    async def _pass_over_interim(self) -> None:
        """Leave out the heads before the answer (RFC 9110, 15.2), which wsproto takes for a refusal. Of a head whose
        status is not here yet, more is read."""
        held = b""
        while _BEGINNING.fullmatch(held) or _INTERIM.match(held):
            head, end, rest = held.partition(b"\r\n\r\n")
            if end:
                held = rest
                continue
            if len(head) > _INTERIM_BYTES:
                raise _cut("the backend's head before its answer to the handshake is too long")
            try:
                data = await self._transport.read()
            except (OSError, Late, trio.ClosedResourceError):
                data = b""
            if not data:
                raise _cut("the backend did not answer the handshake")
            held += data
        if not self._fed(held):
            raise _cut("the backend did not answer the handshake")

    async def _rest_of(self, rejected: RejectConnection) -> RefusedHandshake:
        body, more = bytearray(), rejected.has_body
        while more:
            event = await self._next() or self._end_by_closing()
            if not isinstance(event, RejectData):
                raise _cut("the backend's answer to the handshake broke off")
            body += event.data
            if len(body) > _REJECTED_BYTES:
                raise _cut(f"the backend's answer to the handshake has more than {_REJECTED_BYTES} bytes")
            more = not event.body_finished
        lines = [(bytes(name), bytes(value)) for name, value in rejected.headers]
        return RefusedHandshake(
            rejected.status_code,
            [line for line in lines if line[0] != b"content-length"],
            bytes(body),
        )

    def _end_by_closing(self) -> Event | None:
        """Return the end of a body that lasts until its connection is closed; None where that cut it."""
        if not self._ended or self._transport.damaged or not self._fed(None):
            return None
        return self._events.popleft() if self._events else None

    # The open socket.

    async def message(self) -> str | bytes | int:
        """Return the next message, or the code with which the backend closed."""
        pinged = False
        while True:
            with trio.move_on_after(self._idle_s) as waiting:
                event = await self._next()
            if waiting.cancelled_caught:
                if pinged:
                    self.given_up = f"it sent nothing for {2 * self._idle_s:g} s, and answered no ping"
                    return _GIVEN_UP
                pinged = True
                await self._send(Ping())
                continue
            pinged = False
            match event:
                case None:
                    return _GIVEN_UP if self.given_up else ABNORMAL
                case CloseConnection(code=code):
                    await self._send(event.response())
                    return code
                case Ping():
                    await self._send(event.response())
                case TextMessage() | BytesMessage():
                    try:
                        message = self._messages.joined(event)
                    except TooLarge:
                        await self.close(_TOO_LARGE)
                        return _TOO_LARGE
                    if message is not None:
                        return message
                case _:
                    pass  # a pong

    async def send(self, message: str | bytes) -> None:
        """Send a message."""
        await self._send(TextMessage(data=message) if isinstance(message, str) else BytesMessage(data=message))

    async def close(self, code: int, reason: str = "") -> None:
        """Close with a code."""
        shown = code if code not in (1005, 1006, 1015) else 1001
        await self._send(CloseConnection(code=shown, reason=reason), min(_CLOSING_S, self._idle_s))

    async def _send(self, event: Event, within_s: float = inf) -> None:
        """Send an event; a backend that does not take it in time is given up, which ends the wait for its messages."""
        try:
            data = self._wire.send(event)
        except LocalProtocolError:
            return  # it has closed already
        with trio.move_on_after(min(within_s, self._idle_s)) as sending:
            async with self._sending:
                await self._transport.write(data)
        if sending.cancelled_caught:
            self.given_up = f"it took nothing for {min(within_s, self._idle_s):g} s"
            self._transport.close()

    async def _next(self) -> Event | None:
        """Return the next event; None when the backend's connection ended or broke the protocol."""
        while not self._events:
            try:
                data = await self._transport.read()
            except (OSError, Late, trio.ClosedResourceError):
                return None
            if not data:
                self._ended = True
                return None
            if not self._fed(data):
                return None
        return self._events.popleft()

    def _fed(self, data: bytes | None) -> bool:
        """Take bytes, or None for their end; return False where they break the protocol."""
        try:
            self._wire.receive_data(data)
            self._events.extend(self._wire.events())
        except RemoteProtocolError:
            return False
        return True


def _cut(message: str) -> Refusal:
    return Refusal("backend_cut", "Error connecting to backend service", message=message)
