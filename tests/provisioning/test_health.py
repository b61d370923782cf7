"""The health probe against a real socket."""

import json

import pytest
import trio

from engram.http.client import HttpClient
from engram.provisioning.health import health_probe


@pytest.mark.parametrize(
    ("answer", "healthy"),
    [
        ({"status": "ok", "launch_token": "t"}, True),
        ({"status": "ok", "launch_token": "t", "ready": True}, True),
        ({"status": "ok", "launch_token": "t", "ready": False}, False),
        ({"status": "ok", "launch_token": "another"}, False),
        ({"status": "starting", "launch_token": "t"}, False),
        ({"status": "ok"}, False),
        ("no json", False),
        ([], False),
    ],
)
async def test_only_the_node_with_its_token_is_healthy(answer: object, healthy: bool) -> None:
    body = (answer if isinstance(answer, str) else json.dumps(answer)).encode()

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(4096)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await stream.aclose()

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    http = HttpClient()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        port = listener.socket.getsockname()[1]
        assert await health_probe(http)(f"http://127.0.0.1:{port}", "t") is healthy
        nursery.cancel_scope.cancel()
    assert not await health_probe(http)(f"http://127.0.0.1:{port}", "t")
    await http.aclose()
