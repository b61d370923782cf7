"""The client's side of a WebSocket (RFC 6455, by wsproto): messages whole, bounded, in both directions.

The outbound client's rules hold: no redirects, deadlines, bounded size. `HttpClient.websocket` opens one; the logs of a
container, which servers give in no other way, are read by `read_texts`.
"""

import ssl
from collections.abc import Iterable
from math import inf
from typing import Final, final

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
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

from engram.http import targets
from engram.http.dialling import dial
from engram.http.errors import BadAnswer, Interrupted, NotSent, TooLarge, reason
from engram.http.messages import Content, Messages
from engram.http.transport import Late, Transport

CONNECT_S: Final = 5.0
_CLOSE_S: Final = 1.0
_REASON_BYTES: Final = 300
"""Bytes of a refusal's body that its error shows."""
_TOO_LARGE: Final = 1009
_GONE: Final = (OSError, Late, trio.ClosedResourceError, trio.BrokenResourceError)


@final
class WebSocketClient:
    """An open connection. One task receives; any number may send.

    `HttpClient.websocket` and `open_websocket` make one.
    """

    def __init__(
        self,
        transport: Transport,
        wire: WSConnection,
        early: Iterable[Event],
        max_bytes: int,
        *,
        drops_large: bool = False,
    ) -> None:
        self._transport = transport
        self._wire = wire
        self._events = list(reversed(list(early)))
        self._drops_large = drops_large
        self._messages = Messages(max_bytes, drops_large=drops_large)
        self._sending = trio.Lock()
        self.closed: str = ""
        """Why no more messages come; empty while the connection is open."""

    async def receive(self) -> Content | None:
        """Return the next message; None once the server has closed or is gone, and `closed` says how.

        Raises TooLarge for a message of more than `max_bytes`, and BadAnswer for what is no WebSocket. After TooLarge
        the connection is closed; one that drops large messages has read this one to its end, and goes on.
        """
        while not self.closed:
            while self._events:
                event = self._events.pop()
                if isinstance(event, TextMessage | BytesMessage):
                    message = await self._joined(event)
                    if message is not None:
                        return message
                elif isinstance(event, Ping):
                    await self._write(event.response())
                elif isinstance(event, CloseConnection):
                    self.closed = f"closed by the server with code {event.code}"
                    if self._wire.state is ConnectionState.REMOTE_CLOSING:
                        await self._write(event.response())
                    return None
            await self._read()
        return None

    async def send(self, *messages: Content, within_s: float = inf) -> bool:
        """Send messages in this order, with none of another task between them; return False when the server is gone.

        A server that takes no more within that time is taken for gone: the connection is closed.
        """
        data = []
        for message in messages:
            event = TextMessage(data=message) if isinstance(message, str) else BytesMessage(data=message)
            try:
                data.append(self._wire.send(event))
            except LocalProtocolError:
                return False
        parts = tuple(data)
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            return await self._send_in_turn(parts, within_s)
        try:
            sent = self._transport.write_now(*parts)
            if sent is not None:
                return await self._send_rest(parts, sent, within_s)
            return not self._transport.broken
        finally:
            self._sending.release()

    async def _send_in_turn(self, parts: tuple[bytes, ...], within_s: float) -> bool:
        with trio.move_on_after(within_s):
            async with self._sending:
                await self._transport.write_rest(parts, 0)
            return not self._transport.broken
        return self._give_up(within_s)

    async def _send_rest(self, parts: tuple[bytes, ...], sent: int, within_s: float) -> bool:
        with trio.move_on_after(within_s):
            await self._transport.write_rest(parts, sent)
            return not self._transport.broken
        return self._give_up(within_s)

    def _give_up(self, within_s: float) -> bool:
        self.closed = self.closed or f"the server took nothing for {within_s:g} s"
        self.abort()
        return False

    async def close(self) -> None:
        """Send a close frame, within a second, and close the connection."""
        try:
            with trio.move_on_after(_CLOSE_S):
                await self._write(CloseConnection(code=1000))
        finally:
            self.abort()

    def abort(self) -> None:
        """Close the connection at once; `receive` ends with None."""
        self.closed = self.closed or "closed here"
        self._transport.close()

    async def _write(self, event: Event) -> None:
        try:
            data = self._wire.send(event)
        except LocalProtocolError:
            return
        async with self._sending:
            await self._transport.write(data)

    async def _read(self) -> None:
        try:
            data = await self._transport.read()
        except _GONE as error:
            self.closed = self.closed or f"the connection was lost: {reason(error)}"
            return
        if not data:
            self.closed = "the connection ended without a close frame"
            return
        try:
            self._wire.receive_data(data)
            self._events = list(reversed(list(self._wire.events())))
        except RemoteProtocolError as error:
            self.abort()
            raise BadAnswer(f"no WebSocket: {error}") from error

    async def _joined(self, event: TextMessage | BytesMessage) -> Content | None:
        try:
            return self._messages.joined(event)
        except TooLarge:
            if not self._drops_large:
                with trio.move_on_after(_CLOSE_S):
                    await self._write(CloseConnection(code=_TOO_LARGE))
                self.abort()
            raise


async def open_websocket(
    url: str,
    *,
    headers: Iterable[tuple[str, str]],
    tls: ssl.SSLContext | None,
    address: str | None = None,
    connect_s: float = CONNECT_S,
    answer_s: float = CONNECT_S,
    max_bytes: int,
    drops_large: bool = False,
) -> WebSocketClient:
    """Connect to a http(s) URL and shake hands; messages may have `max_bytes`, see `WebSocketClient.receive`.

    Raises NotSent (no connection within `connect_s`), Interrupted (the handshake was not answered within `answer_s`)
    and BadAnswer (refused, or no WebSocket).
    """
    target = targets.target(url)
    transport = None
    with trio.move_on_after(connect_s):
        transport = await dial(target, tls if target.secure else None, address)
    if transport is None:
        raise NotSent(f"no connection within {connect_s:g} s")
    try:
        with trio.move_on_after(answer_s):
            return await _shaken(transport, target, headers, max_bytes, drops_large=drops_large)
        raise Interrupted(f"the handshake was not answered within {answer_s:g} s")
    except BaseException:
        transport.close()
        raise


async def _shaken(
    transport: Transport,
    target: targets.Target,
    headers: Iterable[tuple[str, str]],
    max_bytes: int,
    *,
    drops_large: bool,
) -> WebSocketClient:
    wire = WSConnection(ConnectionType.CLIENT)
    extra = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
    refused, body = 0, b""
    try:
        await transport.write(wire.send(Request(host=target.authority, target=target.path, extra_headers=extra)))
        while True:
            data = await transport.read()
            wire.receive_data(data or None)
            events = list(wire.events())
            for place, event in enumerate(events):
                if isinstance(event, AcceptConnection):
                    return WebSocketClient(transport, wire, events[place + 1 :], max_bytes, drops_large=drops_large)
                if isinstance(event, RejectConnection):
                    refused = event.status_code
                    if not event.has_body:
                        raise BadAnswer(_refusal(refused, body))
                elif isinstance(event, RejectData):
                    body += event.data
                    if event.body_finished or len(body) > _REASON_BYTES:
                        raise BadAnswer(_refusal(refused, body))
            if not data:
                raise BadAnswer(_refusal(refused, body)) if refused else Interrupted("the connection was closed")
    except (RemoteProtocolError, LocalProtocolError) as error:
        raise BadAnswer(_refusal(refused, body) if refused else f"no WebSocket: {error}") from error
    except _GONE as error:
        raise Interrupted(f"no answer: {reason(error)}") from error


def _refusal(status: int, body: bytes) -> str:
    text = body[:_REASON_BYTES].decode("utf-8", "replace").strip()
    return f"the WebSocket was refused: {status}" + (f" {text}" if text else "")


async def read_texts(
    url: str,
    *,
    headers: list[tuple[str, str]],
    tls: ssl.SSLContext | None,
    address: str | None,
    total_s: float,
    max_bytes: int,
) -> list[str]:
    """Connect to a http(s) URL and return the text messages that arrive until the server closes, `total_s` has passed
    or they have `max_bytes` together.

    Raises NotSent, Interrupted (the handshake was not answered) and BadAnswer (refused, or no WebSocket).
    """
    due = trio.current_time() + total_s
    socket = await open_websocket(
        url,
        headers=headers,
        tls=tls,
        address=address,
        connect_s=min(total_s, CONNECT_S),
        answer_s=total_s,
        max_bytes=max_bytes,
    )
    texts: list[str] = []
    size = 0
    try:
        with trio.move_on_at(due):
            while size <= max_bytes and (message := await socket.receive()) is not None:
                if isinstance(message, str):
                    texts.append(message)
                    size += len(message)
    except TooLarge:
        pass
    finally:
        socket.abort()
    return texts
