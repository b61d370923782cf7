"""HTTP/1.1 for the double: h11 on trio streams, TLS where a context is given, and one hook for what goes wrong.

A handler that raises `Hang` never answers; `Cut` closes the connection without an answer.
"""

import base64
import hashlib
import json
import os
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
import msgspec
import trio
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import CloseConnection, Ping, TextMessage

RECORD: Final = os.environ.get("AKASH_DOUBLE_RECORD", "")
"""A file to which every request is written as it came: what chain and providers get to see."""
MOST_BODY: Final = 4 * 1024**2
_READ: Final = 65_536
_HANDSHAKE_S: Final = 10.0
_WEBSOCKET_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Request(msgspec.Struct, frozen=True):
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes = b""
    content_type: str = "application/json"
    location: str = ""


class Frames(msgspec.Struct, frozen=True):
    """A WebSocket that sends these texts and is then closed with the code."""

    texts: tuple[str, ...]
    code: int = 1000
    reason: str = ""


class Hang(Exception):
    """The request is never answered."""


class Cut(Exception):
    """The connection is closed without an answer."""


HUGE: Final = Answer(200, b'{"padding":"' + b"x" * 32 * 1024**2 + b'"}')
GARBAGE: Final = Answer(200, b"<html><body>It works!</body></html>", "text/html")

Handler: TypeAlias = Callable[[Request], Awaitable[Answer | Frames]]


def _record(head: h11.Request, body: bytes) -> None:
    lines = [head.target, *(b"%s: %s" % (name, value) for name, value in head.headers), body]
    with open(RECORD, "ab") as record:
        record.write(b"\n".join(lines) + b"\n")


def as_json(value: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode())


async def serve(
    handler: Handler, listener: trio.SocketListener, context: Callable[[], ssl.SSLContext] | None = None
) -> None:
    """Serve for ever. With a context, which is made for each connection, the listener speaks TLS."""

    async def connected(stream: trio.SocketStream) -> None:
        try:
            if context is None:
                await _Connection(handler, stream).run()
                return
            secured = trio.SSLStream(stream, context(), server_side=True, https_compatible=True)
            with trio.fail_after(_HANDSHAKE_S):
                await secured.do_handshake()
            await _Connection(handler, secured).run()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, h11.ProtocolError, OSError):
            pass  # what a client does to its connection ends only that
        finally:
            await trio.aclose_forcefully(stream)

    await trio.serve_listeners(connected, [listener])


class _Connection:
    def __init__(self, handler: Handler, stream: "trio.SocketStream | trio.SSLStream[trio.SocketStream]") -> None:
        self._handler = handler
        self._stream = stream
        self._http = h11.Connection(h11.SERVER)

    async def run(self) -> None:
        while True:
            request = await self._request()
            if request is None:
                return
            try:
                answer = await self._handler(request)
            except Hang:
                await trio.sleep_forever()
            except Cut:
                return
            if isinstance(answer, Frames):
                await self._websocket(request, answer)
                return
            await self._answer(answer)
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _request(self) -> Request | None:
        head, body = None, b""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(bytes(await self._stream.receive_some(_READ)))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MOST_BODY:
                    return None
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                if RECORD:
                    _record(head, body)
                target = urlsplit(head.target.decode())
                return Request(
                    head.method.decode(),
                    unquote(target.path),
                    dict(parse_qsl(target.query, keep_blank_values=True)),
                    {name.decode(): value.decode("latin-1") for name, value in head.headers},
                    body,
                )
            else:
                return None

    async def _answer(self, answer: Answer) -> None:
        headers = [("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body)))]
        if answer.location:
            headers.append(("Location", answer.location))
        out = self._http.send(h11.Response(status_code=answer.status, headers=headers)) or b""
        out += self._http.send(h11.Data(answer.body)) or b""
        out += self._http.send(h11.EndOfMessage()) or b""
        await self._stream.send_all(out)

    async def _websocket(self, request: Request, frames: Frames) -> None:
        if request.headers.get("upgrade", "").lower() != "websocket":
            await self._answer(
                Answer(400, b"websocket: the client is not using the websocket protocol\n", "text/plain")
            )
            return
        key = request.headers.get("sec-websocket-key", "").encode() + _WEBSOCKET_GUID
        accept = base64.b64encode(hashlib.sha1(key).digest())
        await self._stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        wire = Connection(ConnectionType.SERVER)
        for text in frames.texts:
            await self._stream.send_all(wire.send(TextMessage(data=text)))
        await self._stream.send_all(wire.send(CloseConnection(code=frames.code, reason=frames.reason)))
        while True:
            data = bytes(await self._stream.receive_some(_READ))
            if not data:
                return
            wire.receive_data(data)
            for event in wire.events():
                if isinstance(event, Ping):
                    await self._stream.send_all(wire.send(event.response()))
                elif isinstance(event, CloseConnection):
                    return
