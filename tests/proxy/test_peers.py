"""Clients and backends that others wrote: curl, Python's requests, node's fetch and http."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import requests
import trio

from engram.proxy.settings.model import BodySettings
from tests.http.origin import read_head
from tests.proxy.harness import Proxied, calling, change, proxying, settings_for
from tests.proxy.signing import headers_of, signed
from tests.sampling import NIGHTLY

HERE = Path(__file__).parent
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")

TOO_LARGE = b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 7\r\n\r\nno room"


@asynccontextmanager
async def early(*, closes: bool) -> AsyncIterator[Proxied]:
    """A proxy whose backend answers 413 after 64 KiB of a body, and closes or goes on reading nothing."""

    async def conversation(stream: trio.SocketStream) -> None:
        received = len(await read_head(stream))
        while received < 65_536:
            received += len(await stream.receive_some(65_536))
        await stream.send_all(TOO_LARGE)
        if not closes:
            await trio.sleep_forever()
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(partial(trio.serve_listeners, conversation, listeners))
        port = listeners[0].socket.getsockname()[1]
        async with proxying(settings_for(port, backend={"breaker_failures": 1_000})) as proxied:
            yield proxied
        nursery.cancel_scope.cancel()


async def ran(*command: str) -> str:
    """What a program prints."""
    with trio.fail_after(60):
        done = await trio.run_process([*command], capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


async def by_requests(url: str, body: bytes, headers: dict[str, str], folder: Path) -> tuple[int, int]:
    answer = await trio.to_thread.run_sync(partial(requests.post, url, data=body, headers=headers, timeout=30))
    return answer.status_code, len(answer.content)


async def by_curl(url: str, body: bytes, headers: dict[str, str], folder: Path) -> tuple[int, int]:
    (folder / "body").write_bytes(body)
    lines = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    shown = ("-s", "-o", str(folder / "out"), "-w", "%{http_code} %{size_download}")
    said = await ran("curl", *shown, *lines, "--data-binary", f"@{folder / 'body'}", url)
    status, size = said.split()
    return int(status), int(size)


async def by_node(how: str, url: str, body: bytes, headers: dict[str, str], folder: Path) -> tuple[int, int]:
    (folder / "body").write_bytes(body)
    (folder / "headers").write_text(json.dumps(headers))
    said = await ran("node", str(HERE / "node_client.mjs"), how, url, str(folder / "body"), str(folder / "headers"))
    status, size = said.split()
    return int(status), int(size)


Peer = Callable[[str, bytes, dict[str, str], Path], Awaitable[tuple[int, int]]]
PEERS: dict[str, Peer] = {
    "requests": by_requests,
    "curl": by_curl,
    "fetch": partial(by_node, "fetch"),
    "node:http": partial(by_node, "http"),
}
TIMES = 100 if NIGHTLY else 1
LARGE = b"x" * 20_000_000


@pytest.mark.external
@needs_node
@needs_curl
@pytest.mark.parametrize("peer", PEERS)
async def test_a_peer_sends_and_receives_whole_bodies(peer: str, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        port = await node_backend(nursery)
        async with proxying(settings_for(port)) as proxied:
            for digest in (False, True):
                body = b"y" * 1_000_000
                headers = headers_of(body, digest=digest)
                assert await PEERS[peer](f"{proxied.url}/inference", body, headers, tmp_path) == (200, len(body))
        nursery.cancel_scope.cancel()


@pytest.mark.external
@needs_node
@needs_curl
@pytest.mark.parametrize("closes", [True, False], ids=["closes", "stays"])
@pytest.mark.parametrize("peer", [each for each in PEERS if each != "fetch"])
async def test_an_early_answer_of_the_backend_is_read(peer: str, closes: bool, tmp_path: Path) -> None:
    async with early(closes=closes) as proxied:
        for _ in range(TIMES):
            headers = headers_of(LARGE, digest=True)
            assert await PEERS[peer](f"{proxied.url}/train", LARGE, headers, tmp_path) == (413, 7)
        await proxied.ended(TIMES)
        assert {ended.code for ended in proxied.ends} == {"done"}
        assert proxied.in_progress == 0


@pytest.mark.external
@needs_node
@needs_curl
@pytest.mark.parametrize("peer", [each for each in PEERS if each != "fetch"])
async def test_the_proxys_own_early_answers_are_read(peer: str, tmp_path: Path) -> None:
    body = b"x" * 5_000_000
    settings = settings_for(9, bodies=BodySettings(max_bytes=1_000_000))
    async with proxying(settings) as proxied:
        for path, headers, status in (
            ("/train", headers_of(body), 413),
            ("/elsewhere", {}, 404),
        ):
            for _ in range(TIMES):
                assert (await PEERS[peer](f"{proxied.url}{path}", body, headers, tmp_path))[0] == status
    async with proxying(settings_for(9)) as proxied:
        for _ in range(TIMES):
            assert (await PEERS[peer](f"{proxied.url}/train", body, {}, tmp_path))[0] == 401


async def node_backend(nursery: trio.Nursery, *arguments: str) -> int:
    """Start node's server; return its port."""
    process = await nursery.start(
        partial(
            trio.run_process,
            ["node", str(HERE / "node_backend.mjs"), *arguments],
            stdout=subprocess.PIPE,
            check=False,
        )
    )
    return int(await process.stdout.receive_some(100))


@pytest.mark.external
@needs_node
@pytest.mark.parametrize(("arguments", "keep_alive_s"), [((), 4.0), (("silent",), 0.05)], ids=["says", "set"])
async def test_a_connection_that_the_backend_is_about_to_close_is_not_used(
    arguments: tuple[str, ...], keep_alive_s: float
) -> None:
    """Requests paced around the backend's idle time: no 502, and each is executed once."""
    count = 10_000 if NIGHTLY else 100
    lanes = 25
    async with trio.open_nursery() as nursery:
        port = await node_backend(nursery, *arguments)
        settings = settings_for(port, backend={"keep_alive_s": keep_alive_s})
        settings = change(settings, "limits", concurrent_per_key=100)
        async with proxying(settings) as proxied:
            failed: list[int] = []

            async def lane(number: int) -> None:
                async with calling(proxied) as client:
                    for turn in range(count // lanes):
                        body = f"{number}-{turn}".encode()
                        got = await client.ask(signed("/inference", body))
                        if got.status != 200 or got.body != body:
                            failed.append(got.status)
                        await trio.sleep(0.08 + 0.04 * ((number * 7 + turn) % 10) / 10)

            async with trio.open_nursery() as lane_nursery:
                for number in range(lanes):
                    lane_nursery.start_soon(lane, number)
            assert failed == []
            answer = await trio.to_thread.run_sync(partial(requests.get, f"http://127.0.0.1:{port}/counts", timeout=5))
            assert answer.json() == [1] * count
        nursery.cancel_scope.cancel()
