"""WebSockets through the proxy: verified at the handshake, passed on both ways, counted while open."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Any

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

from engram.http.asgi import Receive, Scope, Send
from engram.http.head import Bounds
from engram.http.server import Limits
from engram.proxy.settings.model import LimitSettings, ProxySettings
from tests.http.origin import listen, read_head
from tests.http.servers import bare
from tests.proxy.backends import backend, closed_port
from tests.proxy.harness import Proxied, proxying, settings_for
from tests.proxy.signing import ALICE, EVE, headers_of

WEBSOCKETS = Limits(bounds=Bounds(websocket=True))


async def shout(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers each message in capitals, and closes by 4000 at `bye`."""
    assert scope["type"] == "websocket"
    assert not [name for name, _ in scope["headers"] if name.startswith(b"epistula")]
    await receive()
    offered = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": offered[-1] if offered else None})
    while (message := await receive())["type"] == "websocket.receive":
        if message["text"] == "bye":
            await send({"type": "websocket.close", "code": 4000})
            return
        text, data = message["text"], message["bytes"]
        await send({"type": "websocket.send", "text": text.upper() if text is not None else None, "bytes": data})


def lines_of(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


class Socket:
    """A client's WebSocket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._wire = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []

    async def open(self, path: str, headers: dict[str, str], *subprotocols: str) -> Event:
        more = list(subprotocols)
        await self.send(Request(host="m", target=path, extra_headers=lines_of(headers), subprotocols=more))
        return await self.next()

    async def send(self, event: Event) -> None:
        await self._stream.send_all(self._wire.send(event))

    async def next(self) -> Event:
        with trio.fail_after(5):
            while not self._events:
                data = await self._stream.receive_some(65_536)
                self._wire.receive_data(bytes(data) or None)
                self._events += [each for each in self._wire.events() if not isinstance(each, RejectData)]
        return self._events.pop(0)


@asynccontextmanager
async def socket_to(proxied: Proxied) -> AsyncIterator[Socket]:
    async with await trio.open_tcp_stream("127.0.0.1", proxied.port) as stream:
        yield Socket(stream)


def settings(port: int, **sections: Any) -> ProxySettings:
    return settings_for(port, route={"methods": ("GET",), "websocket": True, "drain_s": 0.1}, **sections)


async def test_messages_pass_both_ways_and_so_does_the_close() -> None:
    async with bare(shout, WEBSOCKETS) as server, proxying(settings(server.port)) as proxied:
        async with socket_to(proxied) as socket:
            accepted = await socket.open("/inference?a=1", headers_of(b"", method="GET"), "one", "two")
            assert isinstance(accepted, AcceptConnection)
            assert accepted.subprotocol == "two"
            await socket.send(TextMessage(data="hello"))
            assert await socket.next() == TextMessage(data="HELLO", frame_finished=True, message_finished=True)
            await socket.send(BytesMessage(data=b"\x00" * 100_000))
            received = b""
            while len(received) < 100_000:
                event = await socket.next()
                assert isinstance(event, BytesMessage)
                received += event.data
            assert proxied.state.admission.places.taken == 1
            await socket.send(TextMessage(data="bye"))
            closed = await socket.next()
            assert isinstance(closed, CloseConnection)
            assert closed.code == 4000
        assert (await proxied.end()).code == "done"
        assert proxied.in_progress == 0


async def test_a_client_that_leaves_closes_the_backends_socket() -> None:
    async with bare(shout, WEBSOCKETS) as server, proxying(settings(server.port)) as proxied:
        async with socket_to(proxied) as socket:
            await socket.open("/inference", headers_of(b"", method="GET"))
        await proxied.end()
        assert proxied.in_progress == 0


async def refused(proxied: Proxied, headers: dict[str, str], path: str = "/inference") -> int:
    async with socket_to(proxied) as socket:
        event = await socket.open(path, headers)
        assert isinstance(event, RejectConnection)
        return event.status_code


async def test_a_handshake_is_verified_and_its_uuid_used_up() -> None:
    async with bare(shout, WEBSOCKETS) as server, proxying(settings(server.port)) as proxied:
        assert await refused(proxied, {}) == 401
        assert await refused(proxied, headers_of(b"", by=EVE)) == 403
        headers = headers_of(b"")
        async with socket_to(proxied) as socket:
            assert isinstance(await socket.open("/inference", headers), AcceptConnection)
        assert await refused(proxied, headers) == 401
        assert await refused(proxied, headers_of(b""), "/elsewhere") == 404


async def test_an_open_socket_counts_for_its_key() -> None:
    limits = LimitSettings(requests_per_minute_per_address=0, requests_per_minute_per_key=0, concurrent_per_key=1)
    async with (
        bare(shout, WEBSOCKETS) as server,
        proxying(settings(server.port, limits=limits)) as proxied,
        socket_to(proxied) as socket,
    ):
        await socket.open("/inference", headers_of(b""))
        assert await refused(proxied, headers_of(b"")) == 429


async def test_a_refused_handshake_is_answered_like_any_request() -> None:
    limits = LimitSettings(requests_per_minute_per_address=0, requests_per_minute_per_key=6)
    async with bare(shout, WEBSOCKETS) as server, proxying(settings(server.port, limits=limits)) as proxied:
        for _ in range(10):
            proxied.state.admission.key_rates.take(ALICE.public_key, trio.current_time())
        async with socket_to(proxied) as socket:
            event = await socket.open("/inference", headers_of(b""))
            assert isinstance(event, RejectConnection)
            lines = {bytes(name): bytes(value) for name, value in event.headers}
            ended = await proxied.end()
            assert (event.status_code, ended.code) == (429, "rate")
            assert 0 < int(lines[b"retry-after"]) <= 10
            assert lines[b"x-request-id"].decode() == ended.request_id
            assert len(proxied.ends) == 1


async def test_a_backends_own_refusal_of_the_handshake_is_passed_on() -> None:
    refusing = b"HTTP/1.1 418 Teapot\r\nx-why: tea\r\ncontent-length: 5\r\n\r\nshort"
    async with backend(refusing) as servers, proxying(settings(servers.port)) as proxied, socket_to(proxied) as socket:
        event = await socket.open("/inference", headers_of(b""))
        assert isinstance(event, RejectConnection)
        assert (event.status_code, dict(event.headers)[b"x-why"]) == (418, b"tea")
        assert (await proxied.end()).code == "done"
        assert proxied.in_progress == 0


async def test_a_client_that_leaves_within_the_handshake_closes_the_backends_connection() -> None:
    async with backend("hang") as servers, proxying(settings(servers.port)) as proxied:
        async with socket_to(proxied) as socket:
            await socket.send(Request(host="m", target="/inference", extra_headers=lines_of(headers_of(b""))))
            await servers.began.wait()
        with trio.fail_after(5):
            await servers.closed.wait()
        assert (await proxied.end()).code == "client_gone"
        assert proxied.in_progress == 0


async def test_a_backend_whose_handshakes_fail_is_left_alone_like_any() -> None:
    async with backend("close") as servers:
        failing = settings_for(
            servers.port,
            route={"websocket": True, "methods": ("GET", "POST")},
            backend={"breaker_failures": 2},
        )
        async with proxying(failing) as proxied:
            assert [await refused(proxied, headers_of(b"")) for _ in range(3)] == [502, 502, 503]
            assert (await proxied.end()).code == "breaker_open"
            assert servers.requests == 2


async def test_a_backend_that_falls_silent_is_pinged_and_then_given_up() -> None:
    closed = trio.Event()
    pings: list[bytes] = []

    async def silent(stream: trio.SocketStream) -> None:
        _, accept = greeted(await read_head(stream))
        await stream.send_all(accept)
        while data := await stream.receive_some(65_536):
            pings.append(data)
        closed.set()

    async with trio.open_nursery() as nursery:
        port = await listen(nursery, silent)
        quick = settings_for(port, route={"websocket": True, "methods": ("GET", "POST"), "idle_s": 0.1})
        async with proxying(quick) as proxied, socket_to(proxied) as socket:
            await socket.open("/inference", headers_of(b""))
            event = await socket.next()
            assert isinstance(event, CloseConnection)
            assert event.code == 1011
            with trio.fail_after(5):
                await closed.wait()
            assert pings
            await proxied.end()
            assert "answered no ping" in proxied.state.plan.groups["servers"].words()[0][3]
        nursery.cancel_scope.cancel()


def greeted(stream_head: bytes) -> tuple[WSConnection, bytes]:
    """A backend's side of a WebSocket, and its answer to the handshake."""
    wire = WSConnection(ConnectionType.SERVER)
    wire.receive_data(stream_head)
    assert isinstance(next(wire.events()), Request)
    return wire, wire.send(AcceptConnection())


async def test_a_backend_that_takes_nothing_is_given_up_though_its_client_goes_on_sending() -> None:
    async def stuck(stream: trio.SocketStream) -> None:
        stream.socket.setsockopt(SOL_SOCKET, SO_RCVBUF, 4_096)
        _, accept = greeted(await read_head(stream))
        await stream.send_all(accept)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        port = await listen(nursery, stuck)
        quick = settings_for(port, route={"websocket": True, "methods": ("GET", "POST"), "idle_s": 0.3})
        async with proxying(quick) as proxied, socket_to(proxied) as client:
            await client.open("/inference", headers_of(b""))

            async def flood() -> None:
                while True:
                    await client.send(BytesMessage(data=b"x" * 500_000))

            async with trio.open_nursery() as sending:
                sending.start_soon(flood)
                closed = await client.next()
                sending.cancel_scope.cancel()
            assert isinstance(closed, CloseConnection)
            assert closed.code == 1011
            assert (await proxied.end()).code == "done"
            assert proxied.in_progress == 0
            assert proxied.state.plan.groups["servers"].words()[0][3] == "it took nothing for 0.3 s"
        nursery.cancel_scope.cancel()


async def test_the_time_of_a_route_ends_its_open_sockets_by_1001_and_a_handshake_by_504() -> None:
    async with bare(shout, WEBSOCKETS) as server:
        timed = settings_for(server.port, route={"methods": ("GET",), "websocket": True, "total_s": 0.2})
        async with proxying(timed) as proxied, socket_to(proxied) as client:
            await client.open("/inference", headers_of(b"", method="GET"))
            closed = await client.next()
            assert isinstance(closed, CloseConnection)
            assert (closed.code, closed.reason) == (1001, "the time of this connection is over")
            ended = await proxied.end()
            assert (ended.code, ended.status) == ("total_late", 101)
            assert proxied.in_progress == 0
    async with backend("hang") as servers:
        timed = settings_for(servers.port, route={"methods": ("GET", "POST"), "websocket": True, "total_s": 0.1})
        async with proxying(timed) as proxied:
            assert await refused(proxied, headers_of(b"")) == 504
            assert (await proxied.end()).code == "total_late"


async def test_a_backend_that_is_not_there_is_502() -> None:
    async with proxying(settings(closed_port())) as proxied:
        assert await refused(proxied, headers_of(b"")) == 502


async def test_a_removed_backends_sockets_are_closed_by_1001_after_their_time_to_drain() -> None:
    async with (
        bare(shout, WEBSOCKETS) as server,
        bare(shout, WEBSOCKETS) as other,
        proxying(settings(server.port)) as proxied,
        socket_to(proxied) as socket,
    ):
        await socket.open("/inference", headers_of(b""))
        await proxied.reload(settings(server.port, limits=LimitSettings(concurrent=7)))
        await socket.send(TextMessage(data="still"))
        assert isinstance(await socket.next(), TextMessage)
        await proxied.reload(settings(other.port))
        closed = await socket.next()
        assert isinstance(closed, CloseConnection)
        assert closed.code == 1001
        async with socket_to(proxied) as newer:
            assert isinstance(await newer.open("/inference", headers_of(b"")), AcceptConnection)
