"""Requests that are passed on, and answers that come back, byte for byte."""

import gzip

import msgspec
import pytest
import trio

from engram.proxy.settings.model import RouteSettings
from tests.http.origin import answer, listen, read_head
from tests.http.servers import bare, echo
from tests.proxy.harness import SERVER, calling, proxying, settings_for
from tests.proxy.signing import ALICE, headers_of, raw, signed


async def test_a_signed_request_is_passed_on_and_answered() -> None:
    async with bare(echo) as server, proxying(settings_for(server.port)) as proxied, calling(proxied) as client:
        found = await client.ask(signed("/inference", b"hello"))
        assert (found.status, found.body) == (200, b"hello")
        ended = await proxied.end()
        assert (ended.code, ended.status, ended.caller) == ("done", 200, ALICE.ss58)


async def seen_by_backend(request: bytes, **sections: object) -> bytes:
    """What the backend gets of a request."""
    seen = b""

    async def backend(stream: trio.SocketStream) -> None:
        nonlocal seen
        seen = await read_head(stream)
        await stream.send_all(answer())

    async with trio.open_nursery() as nursery:
        port = await listen(nursery, backend)
        async with proxying(settings_for(port, **sections)) as proxied, calling(proxied) as client:
            assert (await client.ask(request)).status == 200
        nursery.cancel_scope.cancel()
    return seen


async def test_the_query_and_repeated_headers_are_kept_and_what_is_of_the_connection_is_not() -> None:
    body = b"{}"
    request = raw(
        "POST",
        "/inference?model=x&k=1",
        body,
        headers_of(body),
        "X-A: 1",
        "X-A: 2",
        "Connection: keep-alive, X-Secret",
        "X-Secret: of this connection",
        "TE: trailers",
        "X-Forwarded-For: 6.6.6.6",
        "Forwarded: for=6.6.6.6",
    )
    seen = await seen_by_backend(request)
    first, *lines = seen.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert first == b"POST /inference?model=x&k=1 HTTP/1.1"
    names = [line.partition(b":")[0] for line in lines]
    assert [line for line in lines if line.startswith(b"x-a")] == [b"x-a: 1", b"x-a: 2"]
    assert not {b"x-secret", b"te", b"connection"} & set(names)
    assert not [name for name in names if name.startswith((b"epistula", b"authorization"))]
    assert b"6.6.6.6" not in seen
    assert b"x-forwarded-for: 127.0.0.1" in lines
    assert b"x-forwarded-host: miner.example" in lines
    assert b'forwarded: for=127.0.0.1;proto=http;host="miner.example"' in lines
    assert b"x-epistula-caller: " + ALICE.ss58.encode() in lines


@pytest.mark.parametrize(
    ("trusted", "client", "proto"), [("127.0.0.0/8", "198.51.100.7", "https"), ("10.0.0.0/8", "127.0.0.1", "http")]
)
async def test_a_named_front_says_who_calls_and_that_it_came_by_https(trusted: str, client: str, proto: str) -> None:
    server = msgspec.structs.replace(SERVER, public_url="https://miner.example", trusted_proxies=(trusted,))
    request = raw("POST", "/inference", b"{}", headers_of(b"{}"), "X-Forwarded-For: 6.6.6.6, 198.51.100.7")
    seen = await seen_by_backend(request, server=server)
    lines = seen.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert f"x-forwarded-for: {client}".encode() in lines
    assert f"x-forwarded-proto: {proto}".encode() in lines


async def test_a_prefix_route_passes_the_rest_of_the_path_on() -> None:
    route = RouteSettings(path="/v1/*", backend="servers", strip_prefix="/v1", methods=("GET", "POST"))
    seen = await seen_by_backend(signed("/v1/chat/completions?x=1"), routes=(route,))
    assert seen.startswith(b"POST /chat/completions?x=1 HTTP/1.1\r\n")


async def passed_back(reply: bytes, request: bytes | None = None) -> bytes:
    """The bytes that a client gets for a backend's answer, to the end of the connection."""

    async def backend(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(reply)

    received = b""
    async with trio.open_nursery() as nursery:
        port = await listen(nursery, backend)
        settings = settings_for(port, route={"methods": ("GET", "POST", "PUT", "PATCH", "DELETE")})
        async with proxying(settings) as proxied, calling(proxied) as client:
            body = b"{}"
            await client.send(request or raw("POST", "/inference", body, headers_of(body), "Connection: close"))
            while chunk := await client.stream.receive_some(65_536):
                received += chunk
        nursery.cancel_scope.cancel()
    return received


async def test_compressed_bytes_and_two_cookies_pass_unchanged() -> None:
    packed = gzip.compress(b"hello" * 100)
    got = await passed_back(
        answer(
            packed,
            "200 OK",
            "content-encoding: gzip",
            "set-cookie: a=1",
            "set-cookie: b=2, c",
            "connection: x-hop",
            "x-hop: 1",
        )
    )
    head, _, body = got.partition(b"\r\n\r\n")
    assert body == packed
    assert b"set-cookie: a=1\r\nset-cookie: b=2, c\r\n" in head
    assert b"x-hop" not in head


async def test_chunks_and_trailers_pass() -> None:
    reply = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n"
    got = await passed_back(reply)
    assert got.endswith(b"3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n")


async def test_an_answer_to_head_has_the_backends_length_and_no_body() -> None:
    body = b""
    request = raw("HEAD", "/inference", body, headers_of(body, method="HEAD"), "Connection: close")
    got = await passed_back(b"HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n", request)
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\ncontent-length: 12345\r\n" in got
    assert got.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_a_backends_own_errors_pass_unaltered_for_every_method(method: str) -> None:
    request = raw(method, "/inference", b"{}", headers_of(b"{}", method=method), "Connection: close")
    for status in ("400 Bad Request", "404 Not Found", "413 Large", "429 Too Many", "500 Oops", "502 Bad", "503 Later"):
        got = await passed_back(answer(b"own page", status, "x-own: 1"), request)
        head, _, body = got.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0].startswith(f"HTTP/1.1 {status[:3]} ".encode())
        assert body == b"own page"
        assert {b"x-own: 1", b"content-length: 8"} <= set(lines)
        assert not [line for line in lines if line.startswith((b"retry-after", b"content-type", b"cache-control"))]


async def test_events_pass_as_they_come() -> None:
    go_on = trio.Event()

    async def backend(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        await stream.send_all(b"9\r\ndata: 1\n\n\r\n")
        await go_on.wait()
        await stream.send_all(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    async with trio.open_nursery() as nursery:
        port = await listen(nursery, backend)
        async with proxying(settings_for(port)) as proxied, calling(proxied) as client:
            await client.send(signed("/inference"))
            first = await client.read_until(b"data: 1\n\n")
            assert b"x-accel-buffering: no" in first
            assert b"data: 2" not in first
            go_on.set()
            await client.read_until(b"data: 2\n\n\r\n0\r\n\r\n")
        nursery.cancel_scope.cancel()


async def test_a_chunked_upload_is_passed_on_with_its_trailers_when_its_digest_proves_it() -> None:
    body = b"x" * 200_000
    seen = bytearray()

    async def backend(stream: trio.SocketStream) -> None:
        while not seen.endswith(b"\r\n\r\n") or b"\r\n0\r\n" not in seen:
            seen.extend(await stream.receive_some(65_536))
        await stream.send_all(answer())

    async with trio.open_nursery() as nursery:
        port = await listen(nursery, backend)
        async with proxying(settings_for(port)) as proxied, calling(proxied) as client:
            lines = ["POST /train HTTP/1.1", "Host: m", "Transfer-Encoding: chunked"]
            lines += [f"{name}: {value}" for name, value in headers_of(body, digest=True).items()]
            await client.send("\r\n".join([*lines, "", ""]).encode())
            for at in range(0, len(body), 50_000):
                await client.send(b"c350\r\n" + body[at : at + 50_000] + b"\r\n")
            await client.send(b"0\r\nx-sum: 9\r\n\r\n")
            assert (await client.read()).status == 200
        nursery.cancel_scope.cancel()
    assert bytes(seen).endswith(b"0\r\nx-sum: 9\r\n\r\n")
    assert seen.count(b"x") > 200_000
