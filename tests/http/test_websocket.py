"""WebSockets: a client by wsproto on one side, an ASGI application on the other."""

import gc
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from structlog.testing import capture_logs
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

from engram.http.asgi import Receive, Scope, Send
from engram.http.connection import Patience
from engram.http.head import Bounds
from engram.http.messages import MESSAGE_BYTES, Messages
from engram.http.server import Limits
from engram.http.websocket import DENIAL
from tests.http.servers import bare

KEY = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
OFFERED = Limits(bounds=Bounds(websocket=True))


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends back what it gets; "leave" makes it close, "fail" fails, "path" tells where it is."""
    assert scope["type"] == "websocket"
    assert (await receive())["type"] == "websocket.connect"
    if scope["path"] == "/forbidden":
        await send({"type": "websocket.close"})
        return
    if scope["path"].startswith("/busy"):
        assert DENIAL in scope["extensions"]
        lines = [(b"retry-after", b"7"), (b"content-length", b"8")]
        await send({"type": f"{DENIAL}.start", "status": 503, "headers": lines})
        await send({"type": f"{DENIAL}.body", "body": b"not ", "more_body": True})
        if scope["path"] == "/busy/failing":
            raise RuntimeError("as asked")
        await send({"type": f"{DENIAL}.body", "body": b"now."})
        return
    await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
    while (message := await receive())["type"] == "websocket.receive":
        match message["text"]:
            case "leave":
                await send({"type": "websocket.close", "code": 4000, "reason": "as asked"})
                return
            case "fail":
                raise RuntimeError("as asked")
            case _:
                await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})


class Client:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.wire = WSConnection(ConnectionType.CLIENT)
        self.events: list[Event] = []

    async def send(self, event: Event) -> None:
        await self.stream.send_all(self.wire.send(event))

    async def next(self) -> Event | None:
        """The next event; None at the end of input."""
        with trio.fail_after(5):
            while not self.events:
                data = await self.stream.receive_some(65_536)
                if not data:
                    return None
                self.wire.receive_data(data)
                self.events.extend(self.wire.events())
        return self.events.pop(0)


@asynccontextmanager
async def connected(port: int, path: str = "/", subprotocols: list[str] | None = None) -> AsyncIterator[Client]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        client = Client(stream)
        await client.send(Request(host="t", target=path, subprotocols=subprotocols or []))
        yield client


async def test_messages_of_both_kinds_come_back() -> None:
    async with bare(echo, OFFERED) as running, connected(running.port, subprotocols=["b", "a"]) as client:
        accepted = await client.next()
        assert isinstance(accepted, AcceptConnection)
        assert accepted.subprotocol == "b"
        await client.send(TextMessage(data="hello"))
        assert await client.next() == TextMessage(data="hello", message_finished=True, frame_finished=True)
        await client.send(BytesMessage(data=b"\x00\xff"))
        event = await client.next()
        assert isinstance(event, BytesMessage)
        assert bytes(event.data) == b"\x00\xff"


async def test_a_message_in_fragments_is_one_message() -> None:
    async with bare(echo, OFFERED) as running, connected(running.port) as client:
        await client.next()
        for part, last in (("a", False), ("b", False), ("c", True)):
            await client.send(TextMessage(data=part, message_finished=last))
        event = await client.next()
        assert isinstance(event, TextMessage)
        assert event.data == "abc"


async def test_a_ping_is_answered() -> None:
    async with bare(echo, OFFERED) as running, connected(running.port) as client:
        await client.next()
        await client.send(Ping(payload=b"there?"))
        event = await client.next()
        assert isinstance(event, Pong)
        assert bytes(event.payload) == b"there?"


async def test_the_application_may_refuse_the_handshake() -> None:
    async with bare(echo, OFFERED) as running, connected(running.port, "/forbidden") as client:
        event = await client.next()
        assert isinstance(event, RejectConnection)
        assert event.status_code == 403


async def test_the_application_may_answer_the_handshake_by_a_response() -> None:
    async with bare(echo, OFFERED) as running, connected(running.port, "/busy") as client:
        event = await client.next()
        assert isinstance(event, RejectConnection)
        lines = {bytes(name): bytes(value) for name, value in event.headers}
        assert (event.status_code, lines[b"retry-after"], lines[b"connection"]) == (503, b"7", b"close")
        assert b"GMT" in lines[b"date"]
        body = [await client.next(), await client.next()]
        assert b"".join(each.data for each in body if isinstance(each, RejectData)) == b"not now."
        assert await client.next() is None


async def test_an_application_that_fails_within_its_response_ends_the_connection() -> None:
    async with bare(echo, OFFERED) as running, await trio.open_tcp_stream("127.0.0.1", running.port) as stream:
        wire = WSConnection(ConnectionType.CLIENT)
        await stream.send_all(wire.send(Request(host="t", target="/busy/failing")))
        received = b""
        with capture_logs(), trio.fail_after(5):
            while part := await stream.receive_some(65_536):
                received += part
        assert received.count(b"HTTP/1.1") == 1
        assert received.endswith(b"not ")


@pytest.mark.parametrize(("says", "code"), [("leave", 4000), ("fail", 1011)])
async def test_the_application_ends_it(says: str, code: int) -> None:
    async with bare(echo, OFFERED) as running, connected(running.port) as client:
        await client.next()
        await client.send(TextMessage(data=says))
        event = await client.next()
        assert isinstance(event, CloseConnection)
        assert event.code == code


async def test_a_client_that_closes_gets_its_close_back() -> None:
    async with bare(echo, OFFERED) as running, connected(running.port) as client:
        await client.next()
        await client.send(CloseConnection(code=1000))
        event = await client.next()
        assert isinstance(event, CloseConnection)
        assert await client.next() is None


async def test_a_message_that_is_too_large_closes_with_1009() -> None:
    async with bare(echo, OFFERED) as running, connected(running.port) as client:
        await client.next()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, TextMessage(data="x" * (MESSAGE_BYTES + 1)))
            event = await client.next()
        assert isinstance(event, CloseConnection)
        assert event.code == 1009


async def test_open_websockets_of_a_crowded_address_make_room_and_the_longest_silent_first() -> None:
    limits = Limits(bounds=Bounds(websocket=True), max_connections=3)
    async with bare(echo, limits) as running, AsyncExitStack() as stack:
        first, second, third = [await stack.enter_async_context(connected(running.port)) for _ in range(3)]
        for client in (first, second, third):
            await client.next()
        await first.send(TextMessage(data="not silent"))
        assert isinstance(await first.next(), TextMessage)
        await trio.testing.wait_all_tasks_blocked(0.01)
        async with await trio.open_tcp_stream("127.0.0.1", running.port) as fresh:
            await fresh.send_all(b"GET / HTTP/1.1\r\nHost: t\r\nUpgrade: h2c\r\n\r\n")
            assert (await fresh.receive_some(65_536)).startswith(b"HTTP/1.1 400 ")
        assert running.noted.drops == ["evicted"]
        assert await second.next() is None
        await first.send(TextMessage(data="still there"))
        assert isinstance(await first.next(), TextMessage)


async def test_a_silent_client_is_pinged_and_then_closed() -> None:
    limits = Limits(bounds=Bounds(websocket=True), patience=Patience(idle_s=0.2))
    async with bare(echo, limits) as running, connected(running.port) as client:
        await client.next()
        assert isinstance(await client.next(), Ping)
        event = await client.next()
        assert isinstance(event, CloseConnection)
        assert event.code == 1011


async def test_an_open_websocket_is_closed_with_1012_when_the_server_drains() -> None:
    async with bare(echo, OFFERED) as running, connected(running.port) as client:
        await client.next()
        running.stop.set()
        event = await client.next()
        assert isinstance(event, CloseConnection)
        assert event.code == 1012
        await client.stream.send_all(client.wire.send(event.response()))
        await client.stream.aclose()
        with trio.fail_after(5):
            await running.stopped.wait()
        assert running.drained


async def test_a_handshake_that_is_still_open_when_the_server_drains_is_answered_503() -> None:
    """Kludex/uvicorn#596: a close frame was sent into an unfinished handshake."""
    async with bare(echo, OFFERED) as running:
        async with await trio.open_tcp_stream("127.0.0.1", running.port) as stream:
            head = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            await stream.send_all(head)
            await trio.testing.wait_all_tasks_blocked(0.05)
            running.server.draining = True
            rest = b"Sec-WebSocket-Version: 13\r\n" + KEY + b"\r\n"
            await stream.send_all(rest)
            said = bytearray()
            with trio.fail_after(5):
                while part := await stream.receive_some(65_536):
                    said += part
        assert b"HTTP/1.1 503" in said


@pytest.mark.parametrize(
    "lines",
    [
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 12\r\n" + KEY,
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
        b"Upgrade: websocket\r\n",
    ],
    ids=["no key", "version 12", "h2c", "no Connection"],
)
async def test_what_is_no_handshake_is_answered_400(lines: bytes) -> None:
    async with bare(echo, OFFERED) as running, await trio.open_tcp_stream("127.0.0.1", running.port) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: t\r\n" + lines + b"\r\n")
        assert (await stream.receive_some(65_536)).startswith(b"HTTP/1.1 400 ")


async def test_bytes_that_are_no_frames_close_with_1002() -> None:
    async with bare(echo, OFFERED) as running, connected(running.port) as client:
        await client.next()
        await client.stream.send_all(b"\xff\xff\xff\xff")
        event = await client.next()
        assert isinstance(event, CloseConnection)
        assert event.code == 1002


async def test_a_client_that_vanishes_ends_the_application() -> None:
    ended = trio.Event()

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive()) == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        ended.set()

    async with bare(waiting, OFFERED) as running:
        async with connected(running.port) as client:
            await client.next()
        with trio.fail_after(5):
            await ended.wait()


async def test_frames_that_are_sent_with_the_handshake_are_messages() -> None:
    async with bare(echo, OFFERED) as running, await trio.open_tcp_stream("127.0.0.1", running.port) as stream:
        head = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        frame = b"\x81\x82\x00\x00\x00\x00hi"
        await stream.send_all(head + b"Sec-WebSocket-Version: 13\r\n" + KEY + b"\r\n" + frame)
        said = b""
        with trio.fail_after(5):
            while not said.endswith(b"\x81\x02hi"):
                said += await stream.receive_some(65_536)


async def test_a_client_that_pings_and_reads_nothing_is_given_up() -> None:
    limits = Limits(bounds=Bounds(websocket=True), patience=Patience(send_s=0.3))
    ended = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        ended.set()

    async with bare(app, limits) as running, connected(running.port) as client, trio.open_nursery() as nursery:
        await client.next()

        async def flood() -> None:
            pings = b"".join(client.wire.send(Ping(payload=b"x" * 125)) for _ in range(500))
            while True:
                await client.stream.send_all(pings)

        async def flooding() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await flood()

        nursery.start_soon(flooding)
        with trio.fail_after(10):
            await ended.wait()


async def test_a_message_in_endless_empty_fragments_takes_no_room() -> None:
    async with bare(echo, OFFERED) as running, connected(running.port) as client:
        await client.next()
        await client.send(TextMessage(data="a", message_finished=False))
        empty = b"".join(client.wire.send(TextMessage(data="", message_finished=False)) for _ in range(200))
        for _ in range(20):
            await client.stream.send_all(empty)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert sum(len(each._parts) for each in gc.get_objects() if isinstance(each, Messages)) == 1
        await client.send(TextMessage(data="z"))
        event = await client.next()
        assert isinstance(event, TextMessage)
        assert event.data == "az"


async def test_what_is_sent_to_a_client_that_has_closed_meanwhile_is_dropped() -> None:
    ended = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["text"] == "last words"  # the close has come in the same packet
        await send({"type": "websocket.send", "text": "too late"})
        assert (await receive())["code"] == 1000
        ended.set()

    with capture_logs() as logged:
        async with bare(app, OFFERED) as running, connected(running.port) as client:
            await client.next()
            last = client.wire.send(TextMessage(data="last words")) + client.wire.send(CloseConnection(code=1000))
            await client.stream.send_all(last)
            with trio.fail_after(5):
                await ended.wait()
    assert logged == []


async def test_a_stop_before_the_handshake_is_accepted_closes_with_1012_after_it() -> None:
    """Kludex/uvicorn#596: no close frame goes into an unfinished handshake."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked(0.01)
            running.stop.set()
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"

    async with bare(app, OFFERED) as running, connected(running.port) as client:
        assert isinstance(await client.next(), AcceptConnection)
        event = await client.next()
        assert isinstance(event, CloseConnection)
        assert event.code == 1012


async def test_a_message_before_the_handshake_is_accepted_is_an_error_of_the_application() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.send", "text": "early"})

    async with bare(app, OFFERED) as running, connected(running.port) as client:
        event = await client.next()
        assert isinstance(event, RejectConnection)
        assert event.status_code == 500


@pytest.mark.parametrize("count", [1, 2_000])
async def test_frames_that_come_while_the_application_waits_before_it_accepts_are_kept_within_a_bound(
    count: int,
) -> None:
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        with trio.move_on_after(0.2):
            seen.append((await receive())["type"])
        await send({"type": "websocket.accept"})
        message = await receive()
        seen.append(message.get("text", message["type"]))

    async with bare(app, OFFERED) as running, await trio.open_tcp_stream("127.0.0.1", running.port) as stream:
        head = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        await stream.send_all(head + b"Sec-WebSocket-Version: 13\r\n" + KEY + b"\r\n")
        await trio.testing.wait_all_tasks_blocked(0.02)
        with trio.fail_after(5):
            try:
                await stream.send_all((b"\x81\xfe\x00\x80\x00\x00\x00\x00" + b"x" * 128) * count)
                while await stream.receive_some(65_536):
                    pass
            except trio.BrokenResourceError:
                assert count > 1
    assert seen == (["x" * 128] if count == 1 else ["websocket.disconnect"] * 2)


async def test_frames_of_several_tasks_and_pongs_do_not_mix() -> None:
    """A ping in the middle of a large frame that waits for room, and a second sender: each frame arrives whole."""
    big, small = b"A" * 900_000, b"B" * 10

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})

        async def listen() -> None:
            while (await receive())["type"] != "websocket.disconnect":
                pass

        async def repeat(data: bytes, times: int) -> None:
            for _ in range(times):
                await send({"type": "websocket.send", "bytes": data})
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            async with trio.open_nursery() as sending:
                sending.start_soon(repeat, big, 8)
                sending.start_soon(repeat, small, 300)
            await send({"type": "websocket.close"})

    messages, pongs, current = list[bytes](), 0, b""
    async with bare(app, OFFERED) as running, connected(running.port) as client:
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        assert isinstance(await client.next(), AcceptConnection)
        for _ in range(20):
            await client.send(Ping(payload=b"there?"))
        while not isinstance(event := await client.next(), CloseConnection):
            assert event is not None, "cut"
            if isinstance(event, BytesMessage):
                current += bytes(event.data)
                if event.message_finished:
                    messages.append(current)
                    current = b""
            elif isinstance(event, Pong):
                pongs += 1
        await client.send(event.response())
    assert (messages.count(big), messages.count(small), len(messages), pongs) == (8, 300, 308, 20)
