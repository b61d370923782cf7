"""WebSockets through the proxy: verified at the handshake, passed on both ways, counted while open."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Any

import msgspec
import pytest
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
from engram.http.messages import MESSAGE_BYTES
from engram.http.server import Limits
from engram.proxy.endings import Ended
from engram.proxy.settings.model import BackendSettings, LimitSettings, ProxySettings, RouteSettings
from tests.descriptors import open_descriptors
from tests.http.harness import Answer
from tests.http.origin import listen, read_head
from tests.http.servers import bare
from tests.proxy.backends import answer, backend, closed_port
from tests.proxy.harness import Proxied, calling, change, proxying, settings_for
from tests.proxy.signing import ALICE, EVE, headers_of, raw

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


@pytest.mark.parametrize("letter", ["x", "é"], ids=["one byte a letter", "two bytes a letter"])
async def test_a_backends_message_is_bounded_by_its_bytes(letter: str) -> None:
    most = MESSAGE_BYTES // len(letter.encode())

    async def sized(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": letter * int(message["text"])})

    async with (
        bare(sized, WEBSOCKETS) as server,
        proxying(settings(server.port)) as proxied,
        socket_to(proxied) as socket,
    ):
        await socket.open("/inference", headers_of(b"", method="GET"))
        await socket.send(TextMessage(data=str(most)))
        received = 0
        while received < most:
            event = await socket.next()
            assert isinstance(event, TextMessage)
            received += len(event.data)
        await socket.send(TextMessage(data=str(most + 1)))
        closed = await socket.next()
        assert isinstance(closed, CloseConnection)
        assert closed.code == 1009


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


async def handshake_answered(port: int) -> tuple[Answer, Ended]:
    """What a client that asks for a WebSocket reads as an HTTP answer, and how its request ended."""
    lines = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    async with proxying(settings(port)) as proxied, calling(proxied) as client:
        got = await client.ask(raw("GET", "/inference", b"", headers_of(b"", method="GET"), *lines, key))
        return got, await proxied.end()


@pytest.mark.parametrize(
    "steps",
    [
        (b"HTTP/1.1 403 No\r\ncontent-length: 1000\r\n\r\nhalf", "close"),
        (b"HTTP/1.1 403 No\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", "close"),
        (b"HTTP/1.1 403 No\r\n\r\nhalf", "reset"),
        (answer(b"x" * 200_000, "403 No"),),
    ],
    ids=["length", "chunks", "reset", "too long"],
)
async def test_a_refusal_of_the_handshake_that_is_cut_or_too_long_is_not_passed_on_as_whole(
    steps: tuple[bytes | str, ...],
) -> None:
    async with backend(*steps) as servers:
        got, ended = await handshake_answered(servers.port)
    assert (got.status, got.json()["code"], ended.code, ended.status) == (502, "backend_cut", "backend_cut", 502)


@pytest.mark.parametrize(
    "steps",
    [
        (answer(b"x" * 60_000, "403 No"),),
        (b"HTTP/1.1 403 No\r\n\r\n" + b"x" * 60_000, "close"),
    ],
    ids=["length", "until it is closed"],
)
async def test_a_whole_refusal_of_the_handshake_is_passed_on(steps: tuple[bytes | str, ...]) -> None:
    async with backend(*steps) as servers:
        got, ended = await handshake_answered(servers.port)
    assert (got.status, len(got.body), ended.code) == (403, 60_000, "done")


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "byte by byte"])
async def test_interim_heads_before_the_answer_to_a_handshake_are_left_out(at_once: bool) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 On It\r\n\r\n"

    async def hints(stream: trio.SocketStream) -> None:
        wire, accept = greeted(await read_head(stream))
        answered = interim + accept + wire.send(TextMessage(data="hello"))
        for part in [answered] if at_once else [answered[at : at + 1] for at in range(len(answered))]:
            await stream.send_all(part)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        port = await listen(nursery, hints)
        async with proxying(settings(port)) as proxied, socket_to(proxied) as client:
            assert isinstance(await client.open("/inference", headers_of(b"")), AcceptConnection)
            assert await client.next() == TextMessage(data="hello", frame_finished=True, message_finished=True)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "steps",
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n", "close"),
        (b"HTTP/1.1 103 Early\r\n", "close"),
        (b"HTTP/1.1 103 Early\r\n", "drip"),
    ],
    ids=["nothing after it", "cut", "endless"],
)
async def test_interim_heads_without_an_answer_after_them_are_no_answer(
    steps: tuple[bytes | str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram.proxy.exchange.websocket_backend._INTERIM_BYTES", 100)
    async with backend(*steps) as servers:
        got, ended = await handshake_answered(servers.port)
    assert (got.status, got.json()["code"], ended.code) == (502, "backend_cut", "backend_cut")


async def test_a_refusal_after_an_interim_head_is_passed_on() -> None:
    async with backend(b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"no", "403 No")) as servers:
        got, ended = await handshake_answered(servers.port)
    assert (got.status, got.body, ended.code) == (403, b"no", "done")


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


async def test_servers_that_stay_in_a_changed_group_keep_their_health_and_their_sockets() -> None:
    absent = closed_port()
    async with bare(shout, WEBSOCKETS) as server, bare(shout, WEBSOCKETS) as newer:

        def at(*ports: int, **more: Any) -> ProxySettings:
            base = settings(server.port, backend={"failures": 1, "eject_s": 300.0, "breaker_failures": 7} | more)
            urls = tuple(f"http://127.0.0.1:{port}" for port in ports)
            servers = msgspec.structs.replace(base.backends["servers"], urls=urls)
            return msgspec.structs.replace(base, backends={"servers": servers})

        async with proxying(at(absent, server.port)) as proxied, socket_to(proxied) as socket:
            assert isinstance(await socket.open("/inference", headers_of(b"")), AcceptConnection)
            before = proxied.state.plan.groups["servers"].words()
            assert [word[1:3] for word in before] == [("ejected", 0), ("serving", 1)]
            await proxied.reload(at(absent, server.port, newer.port, breaker_failures=8))
            after = proxied.state.plan.groups["servers"]
            assert list(after.words()[:2]) == list(before)
            assert not any(after.retired(each).is_set() for each in after.servers)
            assert await said(socket, "still") == "STILL"
            await proxied.reload(at(absent, newer.port))
            closed = await socket.next()
            assert isinstance(closed, CloseConnection)
            assert closed.code == 1001
            assert [word[1] for word in proxied.state.plan.groups["servers"].words()] == ["ejected", "serving"]
            await proxied.end()
            assert proxied.in_progress == 0


async def test_twenty_sockets_outlive_fifty_reloads_and_new_ones_go_by_the_new_routes() -> None:
    async with bare(shout, WEBSOCKETS) as server, bare(shout, WEBSOCKETS) as newer:
        base = change(settings(server.port), "limits", concurrent_per_key=200)
        async with proxying(base) as proxied:
            sockets_before = open_descriptors("socket:").total()
            tasks_before = trio.lowlevel.current_statistics().tasks_living
            async with AsyncExitStack() as stack:
                held = [await stack.enter_async_context(socket_to(proxied)) for _ in range(20)]
                for socket in held:
                    assert isinstance(await socket.open("/inference", headers_of(b"")), AcceptConnection)
                for number in range(50):
                    await proxied.reload(with_route(base, f"/new{number}", newer.port, number))
                    assert await said(held[number % 20], f"a{number}") == f"A{number}"
                    async with socket_to(proxied) as other:
                        assert isinstance(await other.open(f"/new{number}", headers_of(b"")), AcceptConnection)
                        assert await said(other, "new") == "NEW"
                    assert await refused(proxied, headers_of(b""), f"/new{number - 1}") == 404
                for socket in held:
                    assert await said(socket, "still") == "STILL"
                    await socket.send(TextMessage(data="bye"))
                    closed = await socket.next()
                    assert isinstance(closed, CloseConnection)
                    assert closed.code == 4000
            await proxied.ended(20 + 2 * 50)
            assert {ended.code for ended in proxied.ends} == {"done", "no_route"}
            assert proxied.in_progress == 0
            with trio.fail_after(5):
                while (
                    trio.lowlevel.current_statistics().tasks_living > tasks_before
                    or open_descriptors("socket:").total() > sockets_before
                ):
                    await trio.lowlevel.checkpoint()


async def test_a_reload_that_adds_the_first_route_for_sockets_counts_at_once() -> None:
    async with bare(shout, WEBSOCKETS) as server:
        base = settings_for(server.port)
        async with proxying(base) as proxied:
            assert await refused(proxied, headers_of(b""), "/new") == 404
            await proxied.reload(with_route(base, "/new", server.port, 0))
            async with socket_to(proxied) as socket:
                assert isinstance(await socket.open("/new", headers_of(b"")), AcceptConnection)
                assert await said(socket, "hello") == "HELLO"


def with_route(base: ProxySettings, path: str, port: int, number: int) -> ProxySettings:
    """The settings with one more route, to a group that no other number has, and another bound."""
    group = BackendSettings(urls=(f"http://127.0.0.1:{port}",), connections=number + 1)
    route = RouteSettings(path=path, backend="newer", methods=("GET",), websocket=True)
    return msgspec.structs.replace(
        change(base, "limits", queue=number + 1),
        routes=(*base.routes, route),
        backends={**base.backends, "newer": group},
    )


async def said(socket: Socket, text: str) -> str:
    """What is answered to a text."""
    await socket.send(TextMessage(data=text))
    event = await socket.next()
    assert isinstance(event, TextMessage)
    return event.data
