"""Requests and answers that are streamed, over connections that do their worst; and what becomes of the connections."""

import gc
import hashlib
import json
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from engram.http.asgi import Receive, Scope, Send
from engram.http.client import HttpClient, Interrupted, NotSent
from engram.http.tls import Certificates
from tests.http.origin import always, answer, listen, read_head
from tests.http.others import commands, running
from tests.http.servers import bare, echo
from tests.http.test_tls import make_certificate
from tests.sampling import NIGHTLY

PART = b"x" * 10_000


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.aclose()


async def parts(count: int, part: bytes = PART) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield part


async def everything(client: HttpClient, url: str, body: AsyncIterator[bytes] | bytes | None = None) -> bytes:
    async with client.stream("POST", url, body=body) as answered:
        assert answered.status == 200
        return b"".join([part async for part in answered])


async def echo_parts(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with each part of the body as it comes."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1"), (b"x-a", b"2")]})
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


async def test_trailers_are_sent_when_the_body_has_ended(client: HttpClient, nursery: trio.Nursery) -> None:
    sent, received, ended = 0, bytearray(), trio.Event()

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for part in (b"one", b"three"):
            sent += len(part)
            yield part

    async def conversation(stream: trio.SocketStream) -> None:
        while not received.endswith(b"\r\nx-bytes: 8\r\n\r\n"):
            received.extend(await stream.receive_some())
        ended.set()
        await stream.send_all(answer())

    url = f"http://127.0.0.1:{await listen(nursery, conversation)}/"
    async with client.stream("POST", url, body=body(), trailers=lambda: [(b"x-bytes", b"%d" % sent)]) as answered:
        with trio.fail_after(5):
            await ended.wait()
        assert answered.status == 200
    assert received.endswith(b"\r\n3\r\none\r\n5\r\nthree\r\n0\r\nx-bytes: 8\r\n\r\n")


@pytest.mark.parametrize(
    "trailer", [(b"content-length", b"3"), (b"Host", b"a"), (b"x\r\n", b"1"), (b"x", b"a\r\nb: c")]
)
async def test_what_is_no_trailer_is_not_sent(
    client: HttpClient, nursery: trio.Nursery, trailer: tuple[bytes, bytes]
) -> None:
    received = bytearray()

    async def conversation(stream: trio.SocketStream) -> None:
        while part := await stream.receive_some():
            received.extend(part)

    url = f"http://127.0.0.1:{await listen(nursery, conversation)}/"
    with pytest.raises(ValueError, match="a trailer cannot be sent"):
        async with client.stream("POST", url, body=parts(1), trailers=lambda: [trailer]):
            pass
    assert not received.endswith(b"0\r\n\r\n")


async def test_a_body_of_known_length_has_no_trailers(client: HttpClient) -> None:
    with pytest.raises(NotSent, match="chunked has trailers"):
        async with client.stream("POST", "http://127.0.0.1:1/", body=b"x", trailers=list):
            pass


async def test_both_directions_are_streamed_at_once(client: HttpClient) -> None:
    questions, pending = trio.open_memory_channel[bytes](1)
    heard: list[bytes] = []
    await questions.send(b"zero")  # the server sends a head with the first part behind it
    async with (
        bare(echo_parts) as served,
        client.stream("POST", f"http://127.0.0.1:{served.port}/", body=pending) as answered,
    ):
        assert [value for name, value in answered.headers if name == b"x-a"] == [b"1", b"2"]
        for word in (b"one", b"two", b"three"):
            heard.append(await anext(answered))
            await questions.send(word)
        heard.append(await anext(answered))
        await questions.aclose()
        assert [part async for part in answered] == []
    assert heard == [b"zero", b"one", b"two", b"three"]


@pytest.mark.parametrize("body", [b"", b"small", bytes(3_000_000)], ids=["empty", "small", "large"])
async def test_a_body_of_bytes_comes_back_whole_on_one_connection(client: HttpClient, body: bytes) -> None:
    async with bare(echo) as served:
        url = f"http://127.0.0.1:{served.port}/"
        for _ in range(3):
            assert await everything(client, url, body) == body
            assert (await client.request("POST", url, content=body, max_bytes=4_000_000)).content == body
        assert served.noted.connections == 1


async def test_a_body_of_parts_is_chunked_or_has_the_length_that_was_declared(
    client: HttpClient, nursery: trio.Nursery
) -> None:
    seen: list[bytes] = []

    async def conversation(stream: trio.SocketStream) -> None:
        seen.append(await read_head(stream))
        while b"abab" not in seen[-1].replace(b"\r\n2\r\n", b"") or (
            b"chunked" in seen[-1] and b"0\r\n\r\n" not in seen[-1]
        ):
            seen[-1] += bytes(await stream.receive_some(1_000))
        await stream.send_all(answer(b"", "200 OK", "connection: close"))

    url = f"http://127.0.0.1:{await listen(nursery, conversation)}/"
    await everything(client, url, parts(2, b"ab"))
    async with client.stream("PUT", url, body=parts(2, b"ab"), length=4, headers={"content-length": "9"}):
        pass
    assert b"transfer-encoding: chunked\r\n" in seen[0]
    assert seen[0].endswith(b"\r\n\r\n2\r\nab\r\n2\r\nab\r\n0\r\n\r\n")
    assert b"content-length: 4\r\n" in seen[1]
    assert seen[1].endswith(b"\r\n\r\nabab")
    assert b"chunked" not in seen[1]


@pytest.mark.parametrize("count", [1, 3])
async def test_a_body_of_another_length_than_declared_is_its_senders_error(client: HttpClient, count: int) -> None:
    async with bare(echo) as served:
        with pytest.raises(ValueError, match="20000 bytes it declared"):
            async with client.stream("POST", f"http://127.0.0.1:{served.port}/", body=parts(count), length=20_000):
                pass


async def test_what_the_bodys_iterator_raises_comes_out_and_the_request_is_cut(
    client: HttpClient, nursery: trio.Nursery
) -> None:
    ended = trio.Event()

    async def conversation(stream: trio.SocketStream) -> None:
        received = b""
        while part := await stream.receive_some(65_536):
            received += part
        assert not received.endswith(b"0\r\n\r\n")
        ended.set()

    async def failing() -> AsyncIterator[bytes]:
        yield b"a"
        raise LookupError("the file is gone")

    port = await listen(nursery, conversation)
    with pytest.raises(LookupError):
        async with client.stream("POST", f"http://127.0.0.1:{port}/", body=failing()):
            pass
    with trio.fail_after(5):
        await ended.wait()


async def test_what_the_block_raises_leaves_as_it_is_and_ends_the_sending(client: HttpClient) -> None:
    async with bare(echo_parts) as served:
        with pytest.raises(LookupError):
            async with client.stream("POST", f"http://127.0.0.1:{served.port}/", body=parts(10**9)):
                raise LookupError
        assert client.idle_connections == 0


@pytest.mark.parametrize("body", [None, PART * 1_000], ids=["parts", "bytes"])
async def test_an_answer_may_come_before_the_request_has_been_sent(
    client: HttpClient, nursery: trio.Nursery, body: bytes | None
) -> None:
    async def early(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(answer(b"too large", "413 Content Too Large"))
        await trio.sleep_forever()

    url = f"http://127.0.0.1:{await listen(nursery, early)}/"
    with trio.fail_after(5):
        async with client.stream("POST", url, body=body or parts(10**9)) as answered:
            assert (answered.status, [part async for part in answered]) == (413, [b"too large"])
        if body is not None:
            assert (await client.request("POST", url, content=body)).status == 413
    assert client.idle_connections == 0


async def test_an_answer_is_read_although_the_server_has_ended_its_reading(
    client: HttpClient, nursery: trio.Nursery
) -> None:
    async def refusing(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(answer(b"no", "413 Content Too Large", "connection: close"))
        stream.socket.shutdown(socket.SHUT_RD)

    url = f"http://127.0.0.1:{await listen(nursery, refusing)}/"
    async with client.stream("POST", url, body=parts(2)) as answered:
        assert [part async for part in answered] == [b"no"]


async def test_a_slow_reader_holds_up_the_server_and_not_our_memory(client: HttpClient, nursery: trio.Nursery) -> None:
    sent = 0

    async def endless(stream: trio.SocketStream) -> None:
        nonlocal sent
        await read_head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send_all(bytes(65_536))
            sent += 65_536

    port = await listen(nursery, endless)
    async with client.stream("GET", f"http://127.0.0.1:{port}/") as answered:
        await anext(answered)
        await trio.testing.wait_all_tasks_blocked(0.05)
        before = sent
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert sent == before
        read = 0
        while read < 3_000_000:
            read += len(await anext(answered))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert sent > before


async def test_a_slow_server_holds_up_the_sender_until_its_time_is_over(
    client: HttpClient, nursery: trio.Nursery
) -> None:
    given = 0

    async def counting() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 65_536
            yield bytes(65_536)

    async def deaf(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    port = await listen(nursery, deaf)
    with pytest.raises(Interrupted, match=r"takes nothing for 0\.2 s"):
        async with client.stream("POST", f"http://127.0.0.1:{port}/", body=counting(), answer_s=0.2):
            pass
    assert given < 16_000_000


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_large_body_may_take_its_time_while_the_server_takes_it(
    client: HttpClient, nursery: trio.Nursery, streamed: bool
) -> None:
    body = bytes(30_000_000)

    async def slow(stream: trio.SocketStream) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262_144)
        received = len(await read_head(stream))
        while received < len(body):
            received += len(await stream.receive_some(262_144))
            await trio.sleep(0.01)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    url = f"http://127.0.0.1:{await listen(nursery, slow)}/"
    began = trio.current_time()
    if streamed:
        async with client.stream("POST", url, body=body, answer_s=0.5) as answer:
            assert answer.status == 200
    else:
        assert (await client.request("POST", url, content=body, read_s=0.5, total_s=60)).status == 200
    assert trio.current_time() - began > 0.5, "longer than each wait may be"


async def test_the_wait_for_an_answer_begins_when_the_request_has_been_sent(
    client: HttpClient, nursery: trio.Nursery
) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(6):
            await trio.sleep(0.1)
            yield b"x"

    async with (
        bare(echo) as served,
        client.stream("POST", f"http://127.0.0.1:{served.port}/", body=slow(), answer_s=0.3) as answered,
    ):
        assert [part async for part in answered] == [b"xxxxxx"]

    async def silent(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await trio.sleep_forever()

    url = f"http://127.0.0.1:{await listen(nursery, silent)}/"
    with trio.fail_after(5):
        with pytest.raises(Interrupted, match=r"nothing of the answer for 0\.1 s"):
            async with client.stream("POST", url, body=parts(1), answer_s=0.1):
                pass
        with pytest.raises(Interrupted, match=r"no answer within 0\.1 s"):
            async with client.stream("POST", url, body=slow(), total_s=0.1):
                pass


async def test_an_answer_that_stops_is_ended_by_the_idle_deadline(client: HttpClient, nursery: trio.Nursery) -> None:
    async def stopping(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await trio.sleep_forever()

    port = await listen(nursery, stopping)
    async with client.stream("GET", f"http://127.0.0.1:{port}/", idle_s=0.1) as answered:
        assert await anext(answered) == b"a"
        with pytest.raises(Interrupted, match=r"for 0\.1 s"):
            await anext(answered)


async def test_trailers_are_given_behind_the_body(client: HttpClient, nursery: trio.Nursery) -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n"
    port = await listen(nursery, always(raw))
    async with client.stream("GET", f"http://127.0.0.1:{port}/") as answered:
        assert answered.trailers == []
        assert [part async for part in answered] == [b"a"]
        assert answered.trailers == [(b"x-sum", b"7")]


async def test_an_answer_left_half_read_is_not_read_on_and_its_connection_is_closed(client: HttpClient) -> None:
    async with bare(echo) as served:
        url = f"http://127.0.0.1:{served.port}/"
        async with client.stream("POST", url, body=bytes(3_000_000)) as answered:
            await anext(answered)
        assert client.idle_connections == 0
        with pytest.raises(trio.ClosedResourceError):
            [part async for part in answered]


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["a second answer", "204 with a body", "close", "HTTP/1.0"],
)
async def test_a_connection_that_says_more_or_no_more_carries_no_other_request(
    client: HttpClient, nursery: trio.Nursery, raw: bytes
) -> None:
    port = await listen(nursery, always(raw))
    for _ in range(3):
        assert b"evil" not in (await client.request("GET", f"http://127.0.0.1:{port}/")).content
        assert client.idle_connections == 0


async def test_what_comes_on_an_idle_connection_is_no_answer(client: HttpClient, nursery: trio.Nursery) -> None:
    spoken = trio.Event()

    async def unasked(stream: trio.SocketStream) -> None:
        while await read_head(stream):
            await stream.send_all(answer(b"ok"))
            await trio.testing.wait_all_tasks_blocked(0.01)
            await stream.send_all(answer(b"evil"))
            spoken.set()

    url = f"http://127.0.0.1:{await listen(nursery, unasked)}/"
    for _ in range(3):
        assert (await client.request("GET", url)).content == b"ok"
        await spoken.wait()
        spoken = trio.Event()


async def test_a_connection_that_the_server_closed_while_idle_is_not_used(
    client: HttpClient, nursery: trio.Nursery
) -> None:
    async def once(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(answer())

    url = f"http://127.0.0.1:{await listen(nursery, once)}/"
    for _ in range(3):
        assert (await client.request("GET", url)).status == 200
        await trio.testing.wait_all_tasks_blocked(0.01)


async def test_idle_connections_are_closed_by_requests_to_others(nursery: trio.Nursery) -> None:
    client = HttpClient(keep_alive_s=0.05)
    ports = [await listen(nursery, always(answer())) for _ in range(4)]
    for port in ports[:3]:
        await client.request("GET", f"http://127.0.0.1:{port}/")
    await trio.sleep(0.06)
    for _ in range(3):
        await client.request("GET", f"http://127.0.0.1:{ports[3]}/")
    assert client.idle_connections == 1
    await client.aclose()


async def test_cancelled_requests_leave_no_connection_behind(nursery: trio.Nursery) -> None:
    async def dawdling(stream: trio.SocketStream) -> None:
        while await read_head(stream):
            await trio.sleep(rng.random() * 0.002)
            await stream.send_all(answer(bytes(2_000)))

    rng = random.Random(1)
    client = HttpClient(connections_per_origin=16)
    url = f"http://127.0.0.1:{await listen(nursery, dawdling)}/"
    outcomes = {"whole": 0, "cut": 0}

    async def impatient(after_s: float, streamed: bool) -> None:
        with trio.move_on_after(after_s):
            if streamed:
                await everything(client, url, parts(1, b"x"))
            else:
                await client.request("GET", url)
            outcomes["whole"] += 1
            return
        outcomes["cut"] += 1

    await client.request("GET", url)
    await client.aclose()
    await trio.testing.wait_all_tasks_blocked(0.01)
    gc.collect()  # what other tests left open must not be closed between the two counts
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(250 if NIGHTLY else 20):
        async with trio.open_nursery() as requests:
            for number in range(40):
                after_s = 30.0 if number % 10 == 9 else rng.random() * 0.04  # some wait whatever the load
                requests.start_soon(impatient, after_s, number % 4 == 0)
    assert min(outcomes.values()) > 10, outcomes
    assert client.idle_connections <= 16
    with trio.fail_after(5):
        async with trio.open_nursery() as requests:
            for _ in range(16):
                requests.start_soon(client.request, "GET", url)
    await client.aclose()
    await trio.testing.wait_all_tasks_blocked(0.05)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


async def test_a_pinned_certificate_is_trusted_and_connections_are_kept_behind_tls(pair: tuple[Path, Path]) -> None:
    client = HttpClient(tls=ssl.create_default_context(cafile=str(pair[0])))
    async with bare(echo, certificates=Certificates(*pair)) as served:
        url = f"https://127.0.0.1:{served.port}/"
        for body in (b"x", bytes(1_000_000), b"y"):
            assert await everything(client, url, body) == body
            assert (await client.request("POST", url, content=body)).content == body
        assert await everything(client, url, parts(100)) == PART * 100
        assert (await client.request("POST", url, content=b"f", fresh=True)).content == b"f"
        assert client.idle_connections == 1
    await client.aclose()


async def test_a_certificate_that_is_not_trusted_gets_nothing_of_the_request(
    client: HttpClient, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    pinned = HttpClient(tls=ssl.create_default_context(cafile=str(make_certificate(tmp_path, "two")[0])))
    async with bare(echo, certificates=Certificates(*pair)) as served:
        for each in (client, pinned):
            with pytest.raises(NotSent, match="certificate verify failed"):
                await each.request("GET", f"https://127.0.0.1:{served.port}/")
        with pytest.raises(NotSent):
            await client.request("GET", f"https://127.0.0.1:{served.port}/", connect_s=0.0)
    async with bare(echo) as plain:
        with pytest.raises(NotSent, match="no connection"):
            await client.request("GET", f"https://127.0.0.1:{plain.port}/")


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["hypercorn", "uvicorn", "node"])
async def test_other_peoples_servers_echo_what_is_streamed(client: HttpClient, name: str, tmp_path: Path) -> None:
    if name not in commands(1, tmp_path):
        pytest.skip(f"there is no {name} here")
    with running(name) as port:
        url = f"http://127.0.0.1:{port}/"
        for _ in range(3):
            assert received(await everything(client, url, parts(100))) == received_of(PART * 100)
            assert received(await everything(client, url, PART)) == received_of(PART)
            assert received((await client.request("POST", url, content=PART)).content) == received_of(PART)
            assert (await client.request("HEAD", url)).status == 200
        assert client.idle_connections == 1


def received(answer: bytes) -> tuple[int, str]:
    """What another server's application says that it received: size and sha256."""
    said = json.loads(answer)
    return said["size"], said["sha256"]


def received_of(body: bytes) -> tuple[int, str]:
    return len(body), hashlib.sha256(body).hexdigest()


@pytest.mark.heavy
async def test_nginx_answers_early_and_keeps_the_connection_it_can(client: HttpClient, tmp_path: Path) -> None:
    if "nginx" not in commands(1, tmp_path):
        pytest.skip("there is no nginx here")
    with running("nginx") as port:
        url = f"http://127.0.0.1:{port}/"
        for _ in range(3):
            assert (await client.request("GET", url)).status == 200
            assert received(await everything(client, url, parts(10))) == received_of(PART * 10)
            assert await everything(client, f"{url}early", parts(10)) == b""
        assert (await client.request("POST", url, content=bytes(9_000_000))).status == 413
        async with client.stream("POST", f"{url}early", body=parts(1_000)) as answered:
            assert answered.status == 200
