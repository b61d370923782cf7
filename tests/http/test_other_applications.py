"""Other people's ASGI applications run on the server as they are: FastAPI, Starlette, Quart on trio."""

import json
from collections.abc import AsyncIterator

import fastapi
import pytest
import quart_trio
import trio
from quart import request
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from wsproto.events import AcceptConnection, CloseConnection, TextMessage

from engram.http.asgi import AsgiApp
from engram.http.head import Bounds
from engram.http.server import Limits
from tests.http.harness import Raw
from tests.http.servers import bare
from tests.http.test_websocket import connected

GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"


def post(body: bytes, path: bytes = b"/") -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (path, len(body)) + body


async def talk(app: AsgiApp, *requests: bytes) -> list[tuple[int, bytes]]:
    """Status and body of the answer to each request, all on one connection."""
    async with bare(app) as running, await trio.open_tcp_stream("127.0.0.1", running.port) as stream:
        client, found = Raw(stream), []
        for request in requests:
            answer = await client.ask(request, request.partition(b" ")[0].decode())
            found.append((answer.status, answer.body))
        return found


async def test_fastapi_reads_validates_and_answers() -> None:
    app = fastapi.FastAPI()

    async def total(numbers: list[int]) -> dict[str, int]:
        return {"total": sum(numbers)}

    def in_a_thread() -> str:
        return "from a thread"

    app.post("/total")(total)
    app.get("/")(in_a_thread)
    found = await talk(app, post(b"[1,2,3]", b"/total"), post(b'["x"]', b"/total"), GET, post(b"{", b"/total"))
    assert [status for status, _ in found] == [200, 422, 200, 422]
    assert (json.loads(found[0][1]), json.loads(found[2][1])) == ({"total": 6}, "from a thread")


async def test_starlettes_streams_middleware_and_background_tasks_work() -> None:
    done = trio.Event()

    async def both_ways(asked: Request) -> Response:
        body = [part async for part in asked.stream()]

        async def parts() -> AsyncIterator[bytes]:
            for part in body:
                yield part.upper()

        async def after() -> None:
            done.set()

        return StreamingResponse(parts(), background=BackgroundTask(after))

    async def passed_on(asked: Request, call_next: RequestResponseEndpoint) -> Response:
        answer = await call_next(asked)
        answer.headers["X-Passed"] = "yes"
        return answer

    app = Starlette(routes=[Route("/", both_ways, methods=["GET", "POST"])])
    app.add_middleware(BaseHTTPMiddleware, dispatch=passed_on)
    app.add_middleware(GZipMiddleware)
    big = b"a" * 200_000
    found = await talk(app, post(b"hello"), GET, post(big), GET)
    assert found == [(200, b"HELLO"), (200, b""), (200, big.upper()), (200, b"")]
    with trio.fail_after(5):
        await done.wait()


async def test_an_endless_stream_of_starlette_ends_when_its_client_leaves() -> None:
    ended = trio.Event()

    async def endless(asked: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"again"
                    await trio.sleep(0.01)
            finally:
                ended.set()

        return StreamingResponse(parts())

    async with bare(Starlette(routes=[Route("/", endless)])) as running:
        async with await trio.open_tcp_stream("127.0.0.1", running.port) as stream:
            await stream.send_all(GET)
            await stream.receive_some(65_536)
        with trio.fail_after(5):
            await ended.wait()


async def test_a_websocket_of_starlette_talks_and_closes() -> None:
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text((await socket.receive_text()).upper())
        await socket.close(4001)

    app = Starlette(routes=[WebSocketRoute("/", echo)])
    async with bare(app, Limits(bounds=Bounds(websocket=True))) as running, connected(running.port) as client:
        assert isinstance(await client.next(), AcceptConnection)
        await client.send(TextMessage(data="hello"))
        event = await client.next()
        assert isinstance(event, TextMessage)
        assert event.data == "HELLO"
        event = await client.next()
        assert isinstance(event, CloseConnection)
        assert event.code == 4001


async def test_quart_on_trio_reads_streams_and_answers() -> None:
    app = quart_trio.QuartTrio("other")

    @app.post("/")
    async def echo() -> bytes:
        data = await request.get_data()
        assert isinstance(data, bytes)
        return data

    @app.get("/")
    async def parts() -> AsyncIterator[bytes]:
        async def generate() -> AsyncIterator[bytes]:
            for part in (b"one,", b"two"):
                yield part

        return generate()

    big = b"a" * 200_000
    assert await talk(app, post(big), GET, post(b"")) == [(200, big), (200, b"one,two"), (200, b"")]


@pytest.mark.parametrize("path", [b"/", b"/none"])
async def test_plain_answers_of_starlette_are_framed_for_head_and_http_1_0(path: bytes) -> None:
    async def hello(asked: Request) -> Response:
        return PlainTextResponse("hello")

    app = Starlette(routes=[Route("/", hello)])
    for raw in (b"HEAD %b HTTP/1.1\r\nHost: t\r\n\r\n" % path, b"GET %b HTTP/1.0\r\n\r\n" % path):
        ((status, _),) = await talk(app, raw)
        assert status == (200 if path == b"/" else 404)
