"""Trailers: sent where an answer announced them, and passed to the application with the end of a request's body."""

import trio

from engram.http.asgi import Receive, Scope, Send
from tests.http.servers import bare


async def sums(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers in chunks, with the trailers of the request as its own."""
    trailers, more = [], True
    while more:
        message = await receive()
        more = message["more_body"]
        trailers = [*message.get("trailers", [])]
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
    await send({"type": "http.response.body", "body": b"hello", "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    await send({"type": "http.response.trailers", "headers": [*trailers, (b"x-own", b"1")]})


async def answer_to(raw: bytes) -> bytes:
    async with bare(sums) as server, await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(raw)
        received = b""
        with trio.fail_after(5):
            while chunk := await stream.receive_some(65_536):
                received += chunk
        return received


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n"


async def test_trailers_go_both_ways() -> None:
    raw = await answer_to(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + CHUNKED + b"X-Sum: 7\r\n\r\n")
    assert raw.endswith(b"5\r\nhello\r\n0\r\nx-sum: 7\r\nx-own: 1\r\n\r\n")


async def test_trailers_of_one_request_are_not_those_of_the_next() -> None:
    first = b"POST / HTTP/1.1\r\nHost: x\r\n" + CHUNKED + b"X-Sum: 7\r\n\r\n"
    second = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab"
    raw = await answer_to(first + second)
    assert raw.count(b"x-sum: 7") == 1
    assert raw.endswith(b"0\r\nx-own: 1\r\n\r\n")


async def test_an_answer_of_http_1_0_and_one_to_head_have_no_trailers() -> None:
    assert (await answer_to(b"GET / HTTP/1.0\r\n\r\n")).endswith(b"\r\n\r\nhello")
    head = await answer_to(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert head.endswith(b"\r\n\r\n")
    assert b"x-own" not in head
