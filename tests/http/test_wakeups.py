"""Who is woken for what: wake-ups that come late, twice or for another reason, and sockets closed meanwhile."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from structlog.testing import capture_logs

from engram.http.asgi import Receive, Scope, Send, respond
from engram.http.connection import Patience
from engram.http.server import Limits
from engram.http.transport import LEAST_BYTES_A_S, Transport
from tests.http.servers import bare, echo

GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"


def post(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@contextmanager
def clients(port: int, count: int, said: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections that the kernel has accepted, with what they say, before the server's next step."""
    socks = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(count)]
    try:
        for sock in socks:
            sock.setblocking(False)
            assert sock.send(said) == len(said)
        yield socks
    finally:
        for sock in socks:
            sock.close()


async def everything(sock: socket.socket) -> bytes:
    """All that comes until the end of the stream. Raises ConnectionResetError where a reset overtakes it."""
    said = bytearray()
    with trio.fail_after(5):
        while True:
            await trio.lowlevel.wait_readable(sock)
            if not (part := sock.recv(65_536)):
                return bytes(said)
            said += part


# Sockets that are closed for another connection.


async def test_connections_that_are_evicted_before_they_have_begun_end_without_a_fault() -> None:
    with capture_logs() as logged:
        async with bare(echo, Limits(max_connections=2)) as running:
            with clients(running.port, 40) as socks:
                socks[-1].send(GET)
                await trio.lowlevel.wait_readable(socks[-1])
                assert socks[-1].recv(65_536).startswith(b"HTTP/1.1 200 ")
                for sock in socks[:-2]:
                    assert await everything(sock) == b""
    assert [each["event"] for each in logged] == []


async def test_a_closed_transport_never_waits_on_the_number_that_its_socket_had() -> None:
    ours, client = socket.socketpair()
    transport = Transport(ours, 30)
    number = ours.fileno()
    transport.close()
    reused, other = socket.socketpair()
    with client, reused, other:
        assert number in (reused.fileno(), other.fileno())
        for sock in (reused, other):
            sock.send(b"for somebody else")
        with trio.fail_after(1):
            for _ in range(2):
                with pytest.raises(trio.ClosedResourceError):
                    await transport.read()
            await transport.write(b"x")
        assert transport.broken
        assert (reused.recv(100), other.recv(100)) == (b"for somebody else",) * 2


async def test_a_reader_is_woken_when_its_connection_is_evicted_and_gets_nothing_of_the_next_one() -> None:
    ours, client = socket.socketpair()
    ours.setblocking(False)
    transport = Transport(ours, 30)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises((trio.ClosedResourceError, OSError)):
                await transport.read()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        client.send(b"x")  # it may have been woken by this already
        transport.close()
        reused, other = socket.socketpair()
        for sock in (reused, other):
            sock.send(b"for somebody else")
    with client, reused, other:
        assert (reused.recv(100), other.recv(100)) == (b"for somebody else",) * 2


async def test_a_client_that_takes_a_little_again_and_again_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    ours, client = socket.socketpair()
    ours.setblocking(False)
    client.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    transport = Transport(ours, 30)
    taken = 0
    with client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.write, bytes(4 * LEAST_BYTES_A_S * 60))
            while not transport.broken:
                await trio.sleep(29)
                taken += len(client.recv(65_536))
                transport.sweep(trio.current_time())
                await trio.testing.wait_all_tasks_blocked()
        assert 240 < trio.current_time() < 360
        assert 100_000 < taken < 400_000
        transport.close()


async def test_a_request_that_was_sent_ahead_is_not_lost_to_the_pressure() -> None:
    between, begun = trio.Event(), 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal begun
        begun += 1
        await respond(send, 200, b"")
        between.set()

    async with bare(app, Limits(max_connections=1)) as running:

        async def press() -> None:
            nonlocal between
            while begun < 50:
                await between.wait()
                between = trio.Event()
                assert begun == 50 or not running.server._make_room()

        with clients(running.port, 1, GET * 50) as (sock,):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(press)
                answers = 0
                with trio.fail_after(5):
                    while answers < 50:
                        await trio.lowlevel.wait_readable(sock)
                        answers += sock.recv(65_536).count(b"HTTP/1.1 200 ")


# Wake-ups that must not reach the next wait.


async def test_a_watcher_that_is_cancelled_with_the_answer_does_not_end_the_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            await respond(send, 200, b"done")

    async with bare(app) as running:
        with clients(running.port, 1) as (sock,):
            for request in (GET, post(b"hello"), GET):
                await trio.testing.wait_all_tasks_blocked(0.01)
                sock.send(request[:-1])
                await trio.testing.wait_all_tasks_blocked(0.01)
                sock.send(request[-1:])
                with trio.fail_after(2):
                    await trio.lowlevel.wait_readable(sock)
                assert sock.recv(65_536).endswith(b"done")


async def test_two_that_wait_for_the_clients_bytes_are_an_error_of_the_application_and_no_deadline_is_lost() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits, receive, send)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await receive()

    async def waits(receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            pass
        await respond(send, message["refused"].status, b"given up")

    async with bare(app, Limits(patience=Patience(body_s=0.3))) as running:
        with clients(running.port, 1, post(b"hello")[:-1]) as (sock,):
            assert b"HTTP/1.1 408 " in await everything(sock)


@pytest.mark.parametrize("ahead", [0, 200_000], ids=["nothing", "more than is kept"])
async def test_one_that_watches_is_told_when_its_client_is_given_up(ahead: int) -> None:
    told = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                told.set()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked(0.05)
            await send({"type": "http.response.start", "status": 200, "headers": ()})
            await send({"type": "http.response.body", "body": b"x" * 30_000_000, "more_body": True})
            await trio.sleep_forever()

    async with bare(app, Limits(patience=Patience(send_s=0.3))) as running:
        with clients(running.port, 1, GET) as (sock,):
            async with trio.open_nursery() as nursery:

                async def speak() -> None:
                    rest = b"x" * ahead
                    while rest:
                        await trio.lowlevel.wait_writable(sock)
                        rest = rest[sock.send(rest) :]

                nursery.start_soon(speak)
                with trio.fail_after(5):
                    await told.wait()
                nursery.cancel_scope.cancel()


async def test_an_answer_that_lost_a_part_to_a_cancelled_sender_is_cut() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": ()})
        with trio.move_on_after(0.1) as sending:
            await send({"type": "http.response.body", "body": b"x" * 30_000_000, "more_body": True})
        assert sending.cancelled_caught
        await send({"type": "http.response.body", "body": b"the end"})

    async with bare(app) as running:
        with clients(running.port, 1, GET) as (sock,):
            await trio.sleep(0.2)
            said = await everything(sock)
    assert b"the end" not in said
    assert len(said) < 30_000_000


# The end.


@pytest.mark.parametrize("size", [2, 60_000, 150_000])
async def test_a_body_of_any_size_that_has_arrived_when_the_server_stops_is_answered(size: int) -> None:
    async with bare(echo) as running:
        with clients(running.port, 3, post(b"x" * size)) as socks:
            running.stop.set()
            for sock in socks:
                assert (await everything(sock)).endswith(b"x" * size)
            await running.stopped.wait()
    assert running.drained


async def test_all_that_wait_in_the_kernels_queue_when_the_server_stops_are_answered() -> None:
    async with bare(echo) as running:
        with clients(running.port, 300, post(b"hi")) as socks:
            running.stop.set()
            for sock in socks:
                assert (await everything(sock)).endswith(b"hi")


async def test_what_kept_alive_connections_have_sent_when_the_server_stops_is_answered() -> None:
    async with bare(echo) as running:
        with clients(running.port, 20, GET) as socks:
            for sock in socks:
                await trio.lowlevel.wait_readable(sock)
                sock.recv(65_536)
            await trio.testing.wait_all_tasks_blocked()
            for at, sock in enumerate(socks):
                sock.send(post(b"x" * (at * 7_000)))
            await trio.lowlevel.checkpoint()
            running.stop.set()
            for at, sock in enumerate(socks):
                said = await everything(sock)
                assert said.startswith(b"HTTP/1.1 200 ")
                assert said.endswith(b"x" * (at * 7_000))
            await running.stopped.wait()


async def test_half_a_request_does_not_hold_up_the_end() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": ()})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        running.stop.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        await send({"type": "http.response.body", "body": b""})

    async with bare(app) as running:
        with clients(running.port, 1, GET + GET[:-4]) as (sock,):
            assert (await everything(sock)).count(b"HTTP/1.1") == 1
            with trio.fail_after(2):
                await running.stopped.wait()
