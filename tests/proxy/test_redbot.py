"""REDbot looks at the proxy's answers, and at a backend's through it: it asks again for parts, other encodings, and
what has not changed, and warns of what does not fit together."""

import gzip
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from engram.http.asgi import Receive, Scope, Send, respond
from tests.http.origin import listen, read_head
from tests.http.servers import bare
from tests.proxy.backends import closed_port
from tests.proxy.harness import proxying, settings_for
from tests.proxy.signing import headers_of

PROGRAM = Path(__file__).resolve().parents[2] / ".redbot"
SCRIPT = Path(__file__).parent / "data" / "redbot_notes.py"
TEXT = b"what a backend says of itself, many times over; " * 40
GETS = {"methods": ("GET", "HEAD", "POST")}

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.external,
    pytest.mark.skipif(not PROGRAM.is_dir(), reason="there is no .redbot here (scripts/setup-clients)"),
]


async def well_kept(scope: Scope, receive: Receive, send: Send) -> None:
    """A backend that negotiates and validates as RFC 9110 has it; `/events` streams without a length."""
    asked = dict(scope["headers"])
    if scope["path"] == "/events":
        lines = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": lines})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"data: one\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    compressed = b"gzip" in asked.get(b"accept-encoding", b"")
    tag = b'"gzipped"' if compressed else b'"plain"'
    lines = [(b"etag", tag), (b"vary", b"accept-encoding"), (b"cache-control", b"max-age=60")]
    if asked.get(b"if-none-match") == tag:
        await respond(send, 304, b"", lines)
        return
    lines.append((b"content-type", b"text/plain; charset=utf-8"))
    if compressed:
        lines.append((b"content-encoding", b"gzip"))
    await respond(send, 200, gzip.compress(TEXT, mtime=0) if compressed else TEXT, lines)


@asynccontextmanager
async def signing_front(port: int) -> AsyncIterator[int]:
    """Sign each request for the proxy at `port`: what REDbot asks again would be a replay otherwise."""

    async def conversation(client: trio.SocketStream) -> None:
        asked = await read_head(client)
        line, _, rest = asked.partition(b"\r\n")
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers_of(b"", method="GET").items())
        async with await trio.open_tcp_stream("127.0.0.1", port) as proxy:
            await proxy.send_all(line + b"\r\n" + lines.encode() + b"Connection: close\r\n" + rest)
            while part := await proxy.receive_some(65_536):
                await client.send_all(part)

    async with trio.open_nursery() as nursery:
        yield await listen(nursery, conversation)
        nursery.cancel_scope.cancel()


async def looked_at(url: str) -> dict[str, Any]:
    environ = {**os.environ, "PYTHONPATH": str(PROGRAM)}
    with trio.fail_after(60):
        found = await trio.run_process([sys.executable, str(SCRIPT), url], env=environ, capture_stdout=True)
    said: dict[str, Any] = json.loads(found.stdout)
    return said


def faults(said: dict[str, Any]) -> list[str]:
    """What REDbot calls bad or warns of, but for its explanation of what a status means."""
    notes = [(level, kind, summary) for level, kind, summary in said["notes"] if not kind.startswith("STATUS_")]
    return [f"{level}: {kind}: {summary}" for level, kind, summary in notes if level in ("BAD", "WARN")]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/status", 200), ("/check/x", 404), ("/capacity", 401), ("/nowhere", 404), ("/train", 401)],
)
async def test_redbot_finds_no_fault_in_the_proxys_own_answers(path: str, status: int) -> None:
    async with proxying(settings_for(9, route=GETS)) as proxied:
        said = await looked_at(proxied.url + path)
        assert (said["status"], said["error"], faults(said)) == (status, "", [])


@pytest.mark.parametrize("path", ["/inference", "/events"])
async def test_redbot_finds_no_fault_in_what_passes_through(path: str) -> None:
    async with bare(well_kept) as server:
        settings = settings_for(server.port, route=GETS, paths=("/inference", "/events"))
        async with proxying(settings) as proxied, signing_front(proxied.port) as port:
            said = await looked_at(f"http://127.0.0.1:{port}{path}")
            assert (said["status"], said["error"], faults(said)) == (200, "", [])
            assert {ended.code for ended in proxied.ends} == {"done"}
            if path == "/inference":
                kinds = {kind for _, kind, _ in said["notes"]}
                assert {"INM_304", "CONNEG_GZIP_GOOD"} <= kinds, "it looked at both, and both hold through the proxy"


async def test_redbot_finds_no_fault_in_what_is_said_for_a_backend() -> None:
    async with (
        proxying(settings_for(closed_port(), route=GETS, backend={"breaker_failures": 1})) as proxied,
        signing_front(proxied.port) as port,
    ):
        for status in (502, 503):
            said = await looked_at(f"http://127.0.0.1:{port}/inference")
            assert (said["status"], said["error"], faults(said)) == (status, "", [])
