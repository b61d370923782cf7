"""Bytes that nobody sends on purpose: no answer is a 500, no connection is left hanging, the server lives on."""

import random
import re

import pytest
import trio
from structlog.testing import capture_logs

from engram.http.app import App
from tests.http.harness import SETTINGS, Running, connect, get, make_app, post, serving
from tests.http.test_server import routed
from tests.sampling import NIGHTLY, SEED

SEEDS = [
    get("/hello", "X-Payment: abc", "Accept: */*"),
    get("/health"),
    post(b'{"a":1}', "/echo", "Content-Type: application/json"),
    b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n0\r\n\r\n",
    get("/hello?a=b&c=%00%ff") + get("/hello"),
    b"HEAD /hello HTTP/1.0\r\nHost: t\r\n\r\n",
]
PIECES = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"HTTP/1.1",
    b"\xff\xfe",
    b"Upgrade: h2c\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"0\r\n\r\n",
    b"ffffffff\r\n",
    b"-1",
    b"%",
    b"/../",
    b"Host: x\r\n",
    b"x" * 40_000,
]


def mutated(rng: random.Random) -> bytes:
    data = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[at:at] = rng.choice(PIECES)
            case 1:
                del data[at : at + rng.randint(1, 8)]
            case 2:
                data[at : at + 1] = rng.randbytes(1)
            case _:
                data[at:at] = data[at : at + rng.randint(1, 60)]
    return bytes(data)


async def converse(running: Running, data: bytes) -> bytes:
    received = bytearray()
    async with connect(running) as client:
        try:
            await client.send(data)
            await client.stream.send_eof()
            while chunk := await client.stream.receive_some(65_536):
                received += chunk
        except trio.BrokenResourceError:
            pass
    return bytes(received)


@pytest.mark.parametrize("block", range(100 if NIGHTLY else 4))
async def test_mutated_requests_never_break_the_server(block: int) -> None:
    rng = random.Random(f"{SEED} http fuzz {block}")
    app = routed(make_app(SETTINGS))
    with capture_logs() as events:
        await fuzz(app, rng)
    assert not [event for event in events if event["log_level"] in ("error", "critical")]


async def fuzz(app: App, rng: random.Random) -> None:
    async with serving(app) as running:
        for _ in range(100):
            data = mutated(rng)
            received = b""
            with trio.move_on_after(3) as patience:
                received = await converse(running, data)
            assert not patience.cancelled_caught, f"left hanging by {data!r}"
            statuses = [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]
            assert not [status for status in statuses if status == 500], f"500 for {data!r}"
        async with connect(running) as client:
            assert (await client.ask(get("/hello"))).status == 200


async def test_requests_cut_into_single_bytes_are_the_same_requests() -> None:
    app = routed(make_app(SETTINGS))
    async with serving(app) as running, connect(running) as client:
        for byte in post(b"slowly") + get("/hello"):
            await client.send(bytes([byte]))
        assert (await client.read("POST")).body == b"slowly"
        assert (await client.read()).status == 200
