"""A tool of another server, called once: whatever that server does, the call ends in time with one error."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from engram.http.client import HttpClient
from engram.mcp import client, remote
from engram.mcp.client import ToolClient
from engram.mcp.remote import RemoteFailed

RESULT = {"content": [{"type": "text", "text": "41"}], "structuredContent": {"n": 41}}
Serve = Callable[[trio.SocketStream, dict[str, Any], dict[str, str]], Awaitable[None]]


def http(status: str, body: bytes, media: str = "application/json", more: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: {media}\r\ncontent-length: {len(body)}\r\n{more}connection: close\r\n\r\n"
    ).encode() + body


def result(message: dict[str, Any], given: object = RESULT) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": message.get("id"), "result": given})


def error(message: dict[str, Any], code: int, data: object = None) -> bytes:
    shown = {"code": code, "message": "no", "data": data}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": message.get("id"), "error": shown})


class Server:
    """Answers each connection's one request by what it is given; keeps what it was sent."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.received: list[tuple[dict[str, Any], dict[str, str]]] = []

    async def handle(self, stream: trio.SocketStream) -> None:
        held = b""
        try:
            while b"\r\n\r\n" not in held:
                part = await stream.receive_some(65_536)
                if not part:
                    return
                held += part
            head, _, body = held.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:])
            while len(body) < int(headers["content-length"]):
                body += await stream.receive_some(65_536)
            message = msgspec.json.decode(body)
            self.received.append((message, headers))
            await self._serve(stream, message, headers)
            await stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return


@asynccontextmanager
async def tools(serve: Serve, **given: Any) -> AsyncIterator[tuple[ToolClient, Server]]:
    server, outbound = Server(serve), HttpClient()
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, server.handle, [listener])
        port = listener.socket.getsockname()[1]
        with trio.fail_after(20):
            yield ToolClient(outbound, f"http://127.0.0.1:{port}/mcp", **({"within_s": 5.0} | given)), server
        await outbound.aclose()
        nursery.cancel_scope.cancel()


async def test_the_newest_wire_is_tried_first() -> None:
    async def serve(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
        await stream.send_all(http("200 OK", result(message)))

    async with tools(serve, token="secret") as (tool, server):
        found = await tool.call("prices", {"of": "tao"})
        assert (found.result["structuredContent"], found.is_error) == ({"n": 41}, False)
    [(message, headers)] = server.received
    assert message["params"]["arguments"] == {"of": "tao"}
    assert headers["mcp-method"] == "tools/call"
    assert headers["mcp-name"] == "prices"
    assert headers["authorization"] == "bearer secret"


@pytest.mark.parametrize("refusal", ["400 Bad Request", "404 Not Found", "405 Method Not Allowed"])
async def test_a_server_of_the_handshake_wire_is_spoken_to_in_it_and_remembered(refusal: str) -> None:
    async def serve(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
        if "mcp-method" in headers:
            await stream.send_all(http(refusal, b"Bad Request", "text/plain"))
        elif message["method"] == "initialize":
            begun = result(message, {"protocolVersion": "2025-06-18", "capabilities": {}})
            await stream.send_all(http("200 OK", begun, more="mcp-session-id: abc\r\n"))
        elif "id" not in message:
            await stream.send_all(http("202 Accepted", b""))
        else:
            body = b': hello\n\ndata: {"jsonrpc":"2.0","method":"notifications/x"}\n\nevent: message\ndata: '
            await stream.send_all(http("200 OK", body + result(message) + b"\n\n", "text/event-stream"))

    async with tools(serve) as (tool, server):
        assert (await tool.call("prices", {})).result["structuredContent"] == {"n": 41}
        assert (await tool.call("prices", {})).result["structuredContent"] == {"n": 41}
    methods = [message["method"] for message, _ in server.received]
    assert methods == ["tools/call", *["initialize", "notifications/initialized", "tools/call"] * 2]
    assert server.received[3][1]["mcp-session-id"] == "abc"
    assert server.received[3][1]["mcp-protocol-version"] == "2025-06-18"


@pytest.mark.parametrize(("status", "code"), [("404 Not Found", -32601), ("400 Bad Request", -32602)])
async def test_an_error_of_the_method_is_no_reason_for_a_handshake(status: str, code: int) -> None:
    async def serve(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
        await stream.send_all(http(status, error(message, code)))

    async with tools(serve) as (tool, server):
        with pytest.raises(RemoteFailed, match=str(code)):
            await tool.call("prices", {})
    assert len(server.received) == 1


async def test_a_server_that_names_versions_of_the_handshake_is_believed() -> None:
    async def serve(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
        supported = {"supported": ["2025-11-25"], "requested": "x"}
        await stream.send_all(http("400 Bad Request", error(message, -32022, supported)))

    async with tools(serve) as (tool, server):
        with pytest.raises(RemoteFailed, match="initialize"):
            await tool.call("prices", {})
    assert [message["method"] for message, _ in server.received] == ["tools/call", "initialize"]


async def test_a_server_that_left_the_handshake_wire_is_spoken_to_in_the_newest_again() -> None:
    upgraded = False

    async def serve(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
        if upgraded and "mcp-method" in headers:
            await stream.send_all(http("200 OK", result(message)))
        elif upgraded:
            await stream.send_all(http("400 Bad Request", error(message, -32022, {"supported": ["2026-07-28"]})))
        elif "mcp-method" in headers:
            await stream.send_all(http("400 Bad Request", b"Bad Request", "text/plain"))
        elif message["method"] == "initialize":
            await stream.send_all(http("200 OK", result(message, {"protocolVersion": "2025-06-18"})))
        else:
            await stream.send_all(http("202 Accepted", b"") if "id" not in message else http("200 OK", result(message)))

    async with tools(serve) as (tool, server):
        await tool.call("prices", {})
        upgraded = True
        before = len(server.received)
        assert not (await tool.call("prices", {})).is_error
        assert not (await tool.call("prices", {})).is_error
    methods = [message["method"] for message, _ in server.received[before:]]
    assert methods == ["initialize", "tools/call", "tools/call"]


async def test_an_event_may_be_cut_anywhere() -> None:
    async def serve(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
        answer = result(message)
        cut = answer.index(b',"id"') + 1
        events = b"data: {}\r\n\r\ndata: " + answer[:cut] + b"\r\ndata: " + answer[cut:] + b"\r\n\r\n"
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for byte in events:
            await stream.send_all(b"1\r\n" + bytes([byte]) + b"\r\n")
        await stream.send_all(b"0\r\n\r\n")

    async with tools(serve) as (tool, _):
        assert (await tool.call("prices", {})).result["structuredContent"] == {"n": 41}


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_events_are_read_the_same_from_parts_of_any_size(end: bytes, size: int) -> None:
    stream = end.join(
        [b": hello", b"", b"data: 1", b"data:2", b"", b"event: x", b"", b"data: 3", b"", b"data: open", b""]
    )
    events = remote._Events()
    found: list[bytes] = []
    for at in range(0, len(stream), size):
        found += events.of(stream[at : at + size])
    assert found == [b"1\n2", b"3"]


async def other_id(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
    await stream.send_all(http("200 OK", result({"id": 999})))


async def silence(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
    await trio.sleep_forever()


async def drip(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    while True:
        await stream.send_all(b": \n\n")
        await trio.sleep(0.02)


async def flood(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000000\r\n\r\n")
    while True:
        await stream.send_all(b" " * 65_536)


async def flood_of_events(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    while True:
        await stream.send_all(b"data: {}\n\n" * 5_000)


async def garbage(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
    await stream.send_all(http("200 OK", b"<html>"))


async def no_content(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
    await stream.send_all(http("200 OK", result(message, {})))


async def hang_up(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
    return


async def redirect(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
    await stream.send_all(http("302 Found", b"", more="location: http://127.0.0.1:1/\r\n"))


async def packed(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
    await stream.send_all(http("200 OK", b"x", more="content-encoding: gzip\r\n"))


async def stream_that_ends(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
    await stream.send_all(http("200 OK", b"data: nonsense\n\n", "text/event-stream"))


@pytest.mark.parametrize("serve", [silence, drip])
async def test_a_server_that_never_ends_its_answer_is_left_in_time(serve: Serve) -> None:
    async with tools(serve, within_s=0.3) as (tool, _):
        with pytest.raises(RemoteFailed, match="no answer within"):
            await tool.call("prices", {})


@pytest.mark.parametrize("serve", [flood, flood_of_events])
async def test_a_large_answer_is_left_at_the_bound(serve: Serve) -> None:
    async with tools(serve) as (tool, _):
        with pytest.raises(RemoteFailed, match=f"more than {client.MAX_BYTES} bytes"):
            await tool.call("prices", {})


@pytest.mark.parametrize("serve", [garbage, other_id, no_content, hang_up, redirect, packed, stream_that_ends])
async def test_an_answer_that_cannot_be_used_is_one_error(serve: Serve) -> None:
    async with tools(serve) as (tool, _):
        with pytest.raises(RemoteFailed):
            await tool.call("prices", {})


async def test_a_server_that_is_not_there_is_the_same_error() -> None:
    outbound = HttpClient()
    with pytest.raises(RemoteFailed):
        await ToolClient(outbound, "http://127.0.0.1:1/mcp").call("prices", {})
    await outbound.aclose()
