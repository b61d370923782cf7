"""One request and its answer, seen from a raw socket: framing of answers, bodies as they come, and who leaves when."""

import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from structlog.testing import capture_logs

from engram.http.asgi import AsgiApp, Message, Receive, Scope, Send, respond
from engram.http.connection import Patience
from engram.http.cycle import STREAM
from engram.http.server import Limits
from tests.http.servers import Bare, bare, echo

REQUESTS = 200
GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"


def post(length: int, *lines: bytes) -> bytes:
    return b"\r\n".join([b"POST / HTTP/1.1", b"Host: t", b"Content-Length: %d" % length, *lines, b"", b""])


@asynccontextmanager
async def client(running: Bare) -> AsyncIterator[trio.SocketStream]:
    async with await trio.open_tcp_stream("127.0.0.1", running.port) as stream:
        yield stream


async def read_until(stream: trio.SocketStream, marker: bytes) -> bytes:
    said = bytearray()
    with trio.fail_after(5):
        while marker not in said:
            part = await stream.receive_some(65_536)
            assert part, bytes(said)
            said += part
    return bytes(said)


async def read_all(stream: trio.SocketStream) -> bytes:
    said = bytearray()
    with trio.fail_after(5):
        while part := await stream.receive_some(65_536):
            said += part
    return bytes(said)


def sending(*messages: dict[str, object]) -> AsgiApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, object]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def part(body: bytes, more: bool = False) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def answer(app: AsgiApp, raw: bytes = GET) -> bytes:
    """All that the server says to one request and an end."""
    async with bare(app) as running, client(running) as stream:
        await stream.send_all(raw)
        await stream.send_eof()
        return await read_all(stream)


# Framing of answers.


async def test_an_answer_of_known_length_says_so_and_one_of_unknown_length_is_chunked() -> None:
    known = await answer(sending(start(200, (b"content-length", b"2")), part(b"hi")))
    assert b"content-length: 2\r\n" in known
    assert known.endswith(b"\r\n\r\nhi")
    unknown = await answer(sending(start(), part(b"h", more=True), part(b"i")))
    assert b"transfer-encoding: chunked\r\n" in unknown
    assert unknown.endswith(b"\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n")


async def test_an_answer_of_unknown_length_to_http_1_0_ends_with_the_connection() -> None:
    said = await answer(sending(start(), part(b"h", more=True), part(b"i")), b"GET / HTTP/1.0\r\n\r\n")
    assert b"chunked" not in said
    assert b"connection: close\r\n" in said
    assert said.endswith(b"\r\n\r\nhi")


async def test_the_answer_to_head_has_the_length_and_no_body() -> None:
    said = await answer(
        sending(start(200, (b"content-length", b"2")), part(b"hi")), b"HEAD / HTTP/1.1\r\nHost: t\r\n\r\n"
    )
    assert b"content-length: 2\r\n" in said
    assert said.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_content_has_no_framing(status: int) -> None:
    said = await answer(sending(start(status, (b"content-length", b"2")), part(b"hi")))
    assert b"content-length" not in said
    assert b"transfer-encoding" not in said
    assert said.endswith(b"\r\n\r\n")


async def test_every_answer_has_a_date_and_the_server_frames_it_alone() -> None:
    headers = ((b"Date", b"never"), (b"Transfer-Encoding", b"gzip"), (b"Keep-Alive", b"x"), (b"X-A", b"b"))
    said = (await answer(sending(start(200, *headers), part(b"hi")))).lower()
    assert said.count(b"date: ") == 1
    assert b"never" not in said
    assert b"gzip" not in said
    assert b"keep-alive" not in said
    assert b"x-a: b\r\n" in said


@pytest.mark.parametrize("bad", [(b"X-A", b"b\r\nX-B: c"), (b"X A", b"b"), (b"", b"b"), (b"X-A", b"b\x00")])
async def test_a_header_that_cannot_be_sent_is_an_error_of_the_application(bad: tuple[bytes, bytes]) -> None:
    with capture_logs() as logged:
        said = await answer(sending(start(200, bad), part(b"hi")))
    assert said.startswith(b"HTTP/1.1 500 ")
    assert b"X-B" not in said
    assert [each["event"] for each in logged] == ["application_failed"]


@pytest.mark.parametrize(
    "messages",
    [
        [start(200, (b"content-length", b"3")), part(b"hi")],
        [start(200, (b"content-length", b"1")), part(b"hi")],
        [start(), part(b"h", more=True)],
        [start(), start()],
    ],
    ids=["too short", "too long", "no end", "two heads"],
)
async def test_an_answer_that_cannot_be_finished_is_cut(messages: list[dict[str, object]]) -> None:
    with capture_logs():
        async with bare(sending(*messages)) as running, client(running) as stream:
            await stream.send_all(GET * 2)
            said = await read_all(stream)
    assert said.count(b"HTTP/1.1") <= 1
    assert not said.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("raw", [GET, post(5) + b"hello", b"HEAD / HTTP/1.1\r\nHost: t\r\n\r\n"])
async def test_an_application_that_fails_or_says_nothing_is_a_500_and_ends_its_connection_only(raw: bytes) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("as asked")

    for app in (fails, sending()):
        with capture_logs():
            async with bare(app) as running:
                for _ in range(2):
                    async with client(running) as stream:
                        await stream.send_all(raw)
                        said = await read_all(stream)
                    assert said.startswith(b"HTTP/1.1 500 ")
                    assert (b'"internal"' in said) is not raw.startswith(b"HEAD")
                assert running.noted.refusals == ["internal"] * 2


# Bodies.


async def test_100_is_sent_when_the_body_is_asked_for_and_not_before() -> None:
    asked = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asked.wait()
        await echo(scope, receive, send)

    async with bare(app) as running, client(running) as stream:
        await stream.send_all(post(5, b"Expect: 100-continue"))
        with trio.move_on_after(0.1) as waiting:
            await stream.receive_some(1)
        assert waiting.cancelled_caught
        asked.set()
        assert await read_until(stream, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send_all(b"hello")
        assert (await read_until(stream, b"hello")).startswith(b"HTTP/1.1 200 ")


async def test_no_100_is_sent_when_the_body_is_here_already() -> None:
    said = await answer(echo, post(5, b"Expect: 100-continue") + b"hello")
    assert said.startswith(b"HTTP/1.1 200 ")


async def test_a_final_answer_in_place_of_100_closes() -> None:
    async with bare(sending(start(403), part(b"no"))) as running, client(running) as stream:
        await stream.send_all(post(5_000_000, b"Expect: 100-continue"))
        said = await read_all(stream)
        assert said.startswith(b"HTTP/1.1 403 ")
        assert b"connection: close\r\n" in said


async def test_a_small_body_that_nobody_read_does_not_end_the_connection() -> None:
    async with bare(sending(start(), part(b"hi"))) as running, client(running) as stream:
        await stream.send_all(post(50_000) + b"x" * 49_999)
        await read_until(stream, b"0\r\n\r\n")
        await stream.send_all(b"x" + GET)
        assert (await read_until(stream, b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_large_body_that_nobody_read_ends_the_connection_and_the_answer_is_not_lost() -> None:
    async with bare(sending(start(), part(b"hi"))) as running, client(running) as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, post(2_000_000) + b"x" * 2_000_000)
            said = await read_all(stream)
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close\r\n" in said


async def test_a_reset_within_the_body_ends_the_application_with_a_disconnect() -> None:
    seen: list[str] = []
    ended = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while seen[-1:] != ["http.disconnect"]:
            seen.append((await receive())["type"])
        ended.set()

    with capture_logs():
        async with bare(app) as running:
            stream = await trio.open_tcp_stream("127.0.0.1", running.port)
            await stream.send_all(post(10) + b"half")
            await trio.testing.wait_all_tasks_blocked(0.05)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()
            with trio.fail_after(5):
                await ended.wait()
    assert seen == ["http.request", "http.disconnect"]


async def test_a_body_that_is_refused_may_still_be_answered_by_the_application() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            pass
        await respond(send, 422, f"{message['refused'].code}".encode())

    said = await answer(app, b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nz")
    assert said.startswith(b"HTTP/1.1 422 ")
    assert b"connection: close" in said
    assert said.endswith(b"bad_chunk")


# Streams.


def streaming(work: Callable[[Receive, Send], Awaitable[None]]) -> AsgiApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"][STREAM]()
        await work(receive, send)

    return app


async def test_an_answer_may_begin_before_the_body_has_ended() -> None:
    async def both_ways(receive: Receive, send: Send) -> None:
        await send(start())
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send(part(message["body"].upper(), more=more))

    async with bare(streaming(both_ways)) as running, client(running) as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        assert (await read_until(stream, b"ONE")).startswith(b"HTTP/1.1 200 ")
        await stream.send_all(b"3\r\ntwo\r\n")
        await read_until(stream, b"TWO")
        await stream.send_all(b"0\r\n\r\n" + GET)
        await read_until(stream, b"0\r\n\r\n")


async def test_each_part_of_a_streamed_body_has_its_own_deadline() -> None:
    async def count(receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                await respond(send, 408, b"after %d" % size)
                return
            size, more = size + len(message["body"]), message["more_body"]
        await respond(send, 200, b"%d" % size)

    limits = Limits(patience=Patience(body_s=0.5))
    async with bare(streaming(count), limits) as running, client(running) as stream:
        await stream.send_all(post(6))
        for _ in range(4):
            await stream.send_all(b"x")
            await trio.sleep(0.2)
        said = await read_all(stream)
    assert said.endswith(b"after 4")


async def test_a_stream_is_told_at_once_that_its_client_has_left() -> None:
    left = trio.Event()

    async def wait(receive: Receive, send: Send) -> None:
        await send(start())
        await send(part(b"here", more=True))
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    async with bare(streaming(wait)) as running:
        async with client(running) as stream:
            await stream.send_all(GET)
            await read_until(stream, b"here")
        with trio.fail_after(2):
            await left.wait()


async def test_one_that_waits_for_the_client_to_leave_is_told_when_the_answer_has_ended() -> None:
    async def watched(receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass

            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await respond(send, 200, b"done")

    async with bare(streaming(watched)) as running, client(running) as stream:
        for _ in range(3):
            await stream.send_all(GET)
            assert (await read_until(stream, b"done")).startswith(b"HTTP/1.1 200 ")


async def test_requests_sent_ahead_of_a_stream_are_kept_within_a_bound_and_answered() -> None:
    release = trio.Event()

    async def watched(receive: Receive, send: Send) -> None:
        if release.is_set():
            await respond(send, 200, b"next")
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, receive)
            await release.wait()
            await respond(send, 200, b"first")

    async def watch(receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    ahead = (b"GET / HTTP/1.1\r\nHost: t\r\nX-Padding: " + b"x" * 4_000 + b"\r\n\r\n") * REQUESTS
    async with bare(streaming(watched)) as running, client(running) as stream:
        await stream.send_all(GET)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, ahead)
            await trio.testing.wait_all_tasks_blocked(0.05)
            (connection,) = running.server._open
            assert connection.parser.held <= 3 * 65_536
            release.set()
            size = len(await read_until(stream, b"first"))
            each = len(await answer(streaming(watched)))
            with trio.fail_after(10):
                while size < each * REQUESTS:
                    size += len(await stream.receive_some(1 << 20))


async def test_a_client_that_reads_slowly_holds_up_its_stream_only() -> None:
    written = 0

    async def pour(receive: Receive, send: Send) -> None:
        nonlocal written
        await send(start())
        for _ in range(1_000):
            await send(part(b"x" * 65_536, more=True))
            written += 65_536
        await send(part(b""))

    limits = Limits(patience=Patience(send_s=60))
    async with bare(streaming(pour), limits) as running, client(running) as stream, client(running) as other:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        await stream.send_all(GET)
        await stream.receive_some(1)
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert written < 1_000_000, "what the kernel holds is bounded too"
        await other.send_all(GET)
        await read_until(other, b"xxx")


async def test_what_is_written_to_a_client_that_has_left_is_dropped_and_the_application_goes_on() -> None:
    """Kludex/uvicorn#336: a handler that waited for room was never woken."""
    finished = trio.Event()

    async def pour(receive: Receive, send: Send) -> None:
        await send(start())
        for _ in range(500):
            await send(part(b"x" * 65_536, more=True))
        await send(part(b""))
        finished.set()

    async with bare(streaming(pour)) as running:
        async with client(running) as stream:
            await stream.send_all(GET)
            await stream.receive_some(1)
        with trio.fail_after(5):
            await finished.wait()


# Ends.


@pytest.mark.parametrize("before", [b"", GET, GET[:20], GET + GET[:20]], ids=["fresh", "kept", "half", "kept, half"])
async def test_a_head_in_two_packets_is_answered_while_the_server_stops(before: bytes) -> None:
    async with bare(echo) as running, client(running) as stream:
        if before:
            await stream.send_all(before)
        if before.startswith(GET):
            await read_until(stream, b"\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked(0.02)
        if before == GET:
            await stream.send_all(GET[:20])
        running.stop.set()
        await trio.testing.wait_all_tasks_blocked(0.02)
        if not before:
            await stream.send_all(GET[:20])
            await trio.testing.wait_all_tasks_blocked(0.02)
        await stream.send_all(GET[20:])
        assert b"connection: close" in await read_until(stream, b"\r\n\r\n")
        with trio.fail_after(5):
            await running.stopped.wait()


async def test_a_head_that_does_not_come_whole_holds_the_stop_up_for_a_second_only() -> None:
    async with bare(echo) as running, client(running) as stream:
        await stream.send_all(GET[:20])
        await trio.testing.wait_all_tasks_blocked(0.02)
        running.stop.set()
        with trio.fail_after(3):
            await running.stopped.wait()
        assert await stream.receive_some(1) == b""


@pytest.mark.parametrize("asked_later", [False, True], ids=["waited for", "asked for later"])
async def test_a_body_that_does_not_come_whole_holds_the_stop_up_for_seconds_only(asked_later: bool) -> None:
    began, release = trio.Event(), trio.Event()
    told: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        began.set()
        if asked_later:
            await release.wait()
        while (message := await receive())["type"] == "http.request":
            pass
        told.append(message)
        await respond(send, message["refused"].status, b"late")

    async with bare(app, drain_s=60) as running, client(running) as stream:
        await stream.send_all(post(9) + b"half")
        await began.wait()
        await trio.testing.wait_all_tasks_blocked(0.02)
        running.stop.set()
        await trio.testing.wait_all_tasks_blocked(0.02)
        release.set()
        with trio.fail_after(10):
            assert (await read_all(stream)).startswith(b"HTTP/1.1 408 ")
            await running.stopped.wait()
        assert (running.drained, told[0]["refused"].code) == (True, "body_timeout")


async def test_a_body_that_comes_soon_after_the_server_is_told_to_stop_is_answered() -> None:
    async with bare(echo) as running, client(running) as stream:
        await stream.send_all(post(9) + b"half")
        await trio.testing.wait_all_tasks_blocked(0.02)
        running.stop.set()
        await trio.testing.wait_all_tasks_blocked(0.02)
        await stream.send_all(b" more")
        assert (await read_all(stream)).endswith(b"half more")


async def test_what_has_arrived_when_the_server_stops_is_answered() -> None:
    """benoitc/gunicorn#2529: requests that had arrived were dropped on SIGTERM."""
    async with bare(echo) as running:
        streams = [await trio.open_tcp_stream("127.0.0.1", running.port) for _ in range(40)]
        for stream in streams[:20]:
            await stream.send_all(GET)
            await read_until(stream, b"\r\n\r\n")
        for stream in streams:
            await stream.send_all(post(2) + b"hi")
        running.stop.set()
        for stream in streams:
            said = await read_all(stream)
            assert said.startswith(b"HTTP/1.1 200 ")
            await stream.aclose()
        await running.stopped.wait()
        assert running.drained


@pytest.mark.parametrize("size", [0, 5, 3_000], ids=["no body", "a body", "a body that is left unread"])
async def test_pipelined_requests_that_have_been_read_whole_are_answered_while_the_server_stops(size: int) -> None:
    began, release = trio.Event(), trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        began.set()
        await release.wait()
        if size < 1_000:
            await receive()
        await respond(send, 200, scope["raw_path"])

    raw = [
        b"POST /%d HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%b" % (number, size, b"x" * size)
        for number in range(4)
    ]
    async with bare(app) as running, client(running) as stream:
        await stream.send_all(b"".join(raw)[:-1] if size else b"".join(raw[:3]) + raw[3][:-1])  # the last is not whole
        await began.wait()
        running.stop.set()
        await trio.testing.wait_all_tasks_blocked(0.02)
        release.set()
        said = await read_all(stream)
        with trio.fail_after(5):
            await running.stopped.wait()
    assert [said.count(b"\r\n\r\n/%d" % number) for number in range(4)] == [1, 1, 1, 0]
    assert said.count(b"connection: close") == 1
    assert running.drained


async def test_the_idle_time_of_the_answer_before_does_not_cut_a_busy_connection() -> None:
    """Kludex/uvicorn#824, #2243."""

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.sleep(0.6)
        await respond(send, 200, b"done")

    async with bare(slow, Limits(patience=Patience(idle_s=0.3))) as running, client(running) as stream:
        for _ in range(2):
            await stream.send_all(GET)
            await read_until(stream, b"done")


# What an application does wrong, and what it asks for late.


@pytest.mark.parametrize(
    "first",
    [
        start(100),
        start(103),
        start(1_000),
        start(200, (b"content-length", b"2"), (b"content-length", b"3")),
        start(200, (b"content-length", b"-2")),
        start(200, (b"content-length", b"+2")),
    ],
    ids=["100", "103", "1000", "two lengths", "a negative length", "a signed length"],
)
async def test_a_head_that_is_no_final_one_or_frames_twice_is_an_error_of_the_application(
    first: dict[str, object],
) -> None:
    said = await answer(sending(first, part(b"hi")))
    assert said.startswith(b"HTTP/1.1 500 ")
    assert said.count(b"HTTP/1.1") == 1


async def test_an_application_that_fails_between_head_and_body_is_a_500() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        raise RuntimeError("as asked")

    assert (await answer(app)).startswith(b"HTTP/1.1 500 ")


async def test_no_100_is_sent_within_an_answer_that_has_begun() -> None:
    async def early(receive: Receive, send: Send) -> None:
        await send(start())
        await send(part(b"early,", more=True))
        message = await receive()
        await send(part(b"then " + message["body"]))

    async with bare(streaming(early)) as running, client(running) as stream:
        await stream.send_all(post(5, b"Expect: 100-continue"))
        said = await read_until(stream, b"early,")
        await trio.testing.wait_all_tasks_blocked(0.02)
        await stream.send_all(b"hello")
        said += await read_all(stream)
    assert b"100 Continue" not in said
    assert b"connection: close\r\n" in said
    assert b"then hello" in said


async def test_pipelined_requests_on_a_connection_that_stays_open_are_each_answered_in_order() -> None:
    """benoitc/gunicorn#3727: one that was read together with another was dropped, and its client hung."""
    async with bare(echo) as running, client(running) as stream:
        for round_ in range(3):
            bodies = [b"%d.%d;" % (round_, number) for number in range(30)]
            await stream.send_all(b"".join(post(len(body)) + body for body in bodies))
            said = await read_until(stream, bodies[-1])
            assert re.findall(rb"\d+\.\d+;", said) == bodies
        await stream.send_all(GET)
        await read_until(stream, b"\r\n\r\n")


@pytest.mark.parametrize("lines", [b"", b"Connection: close\r\n", b"Connection: keep-alive, close\r\n"])
async def test_http_1_0_is_closed_after_its_answer_unless_it_asks_to_be_kept(lines: bytes) -> None:
    """pgjones/hypercorn#330: HTTP/1.0 with `Connection: close` was kept open."""
    async with bare(echo) as running, client(running) as stream:
        await stream.send_all(b"GET / HTTP/1.0\r\n" + lines + b"\r\n")
        said = await read_all(stream)
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close\r\n" in said
