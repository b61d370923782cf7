"""Clients and backends that others wrote: curl, Python's requests, node's fetch and http."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
import requests
import trio

from engram.proxy.limits.holders import TooMany
from engram.proxy.settings.model import BodySettings, LimitSettings
from tests.http.origin import read_head
from tests.proxy.harness import UNLIMITED, Proxied, calling, change, proxying, settings_for
from tests.proxy.peers import patient
from tests.proxy.signing import ALICE, head, headers_of, signed
from tests.sampling import NIGHTLY, sample

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
        async with proxying(patient(settings_for(port, backend={"breaker_failures": 1_000}))) as proxied:
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
        async with proxying(patient(settings_for(port))) as proxied:
            for digest in (False, True):
                body = b"y" * 1_000_000
                headers = headers_of(body, digest=digest)
                assert await PEERS[peer](f"{proxied.url}/inference", body, headers, tmp_path) == (200, len(body))
        nursery.cancel_scope.cancel()


@pytest.mark.external
@needs_node
@needs_curl
@pytest.mark.parametrize("closes", [True, False], ids=["closes", "stays"])
@pytest.mark.parametrize("peer", PEERS)
async def test_an_early_answer_of_the_backend_is_read(peer: str, closes: bool, tmp_path: Path) -> None:
    async with early(closes=closes) as proxied:
        for _ in range(TIMES):
            headers = headers_of(LARGE, digest=True)
            assert await PEERS[peer](f"{proxied.url}/train", LARGE, headers, tmp_path) == (413, 7)
        await proxied.ended(TIMES)
        assert {ended.code for ended in proxied.ends} == {"done"}
        assert proxied.in_progress == 0


def too_large(proxied: Proxied) -> None:
    """Nothing more is needed: the body is longer than the route takes."""


def too_fast(proxied: Proxied) -> None:
    """Use up what its address may send, of the next minute too: some clients take a while to start."""
    while not proxied.state.admission.address_rates.take("127.0.0.1", trio.current_time() + 60):
        pass


def too_many(proxied: Proxied) -> None:
    """Let its key have all the requests in progress that it may have."""
    while not isinstance(proxied.state.admission.keys.enter(ALICE.public_key, trio.current_time()), TooMany):
        pass


def no_place(proxied: Proxied) -> None:
    """Take all places."""
    while proxied.state.admission.place_now() is not None:
        pass


OFTEN = LimitSettings(
    requests_per_minute_per_address=6, requests_per_minute_per_key=0, concurrent_per_key=1, concurrent=1, queue=0
)
ONE_PLACE = msgspec.structs.replace(OFTEN, requests_per_minute_per_address=0)
OWN: dict[str, tuple[Callable[[Proxied], None] | None, str, dict[str, str] | None, int, bool]] = {
    "401": (None, "/train", {}, 401, False),
    "404": (None, "/elsewhere", {}, 404, False),
    "413": (too_large, "/train", None, 413, False),
    "429 of the address": (too_fast, "/train", None, 429, True),
    "429 of the key": (too_many, "/train", None, 429, True),
    "503 without a place": (no_place, "/train", None, 503, True),
}
"""What is prepared, the path, the headers (None: signed), the status, and whether it says when to come again."""


@pytest.mark.external
@needs_node
@needs_curl
@pytest.mark.parametrize(("peer", "what"), sample("early answers", [(peer, what) for peer in PEERS for what in OWN], 6))
async def test_the_proxys_own_early_answers_are_read(peer: str, what: str, tmp_path: Path) -> None:
    prepare, path, headers, status, _ = OWN[what]
    most = 1_000_000 if what == "413" else 100_000_000
    body = b"x" * 5_000_000
    limits = OFTEN if "429" in what else ONE_PLACE if "503" in what else UNLIMITED
    settings = patient(settings_for(9, bodies=BodySettings(max_bytes=most), limits=limits))
    async with proxying(settings) as proxied:
        for turn in range(TIMES):
            if prepare is not None:
                prepare(proxied)
            lines = headers_of(body, digest=True) if headers is None else headers
            assert (await PEERS[peer](f"{proxied.url}{path}", body, lines, tmp_path))[0] == status, turn
        await proxied.ended(TIMES)
        assert max(ended.received_bytes for ended in proxied.ends) < len(body), "it was said before the whole body"


@pytest.mark.parametrize("what", OWN)
async def test_an_early_answer_is_said_without_100_and_its_connection_is_closed_without_a_reset(what: str) -> None:
    """Each is read whole by a client that sends on, up to the server's own end of the connection."""
    prepare, path, headers, status, again = OWN[what]
    most = 1_000_000 if what == "413" else 100_000_000
    body = b"x" * 2_000_000
    limits = OFTEN if again else UNLIMITED
    async with proxying(settings_for(9, bodies=BodySettings(max_bytes=most), limits=limits)) as proxied:
        for expects in ((), ("Expect: 100-continue",)):
            if prepare is not None:
                prepare(proxied)
            lines = headers_of(body, digest=True) if headers is None else headers
            async with calling(proxied) as client:
                await client.send(head("POST", path, len(body), lines, *expects))
                if not expects:
                    await client.send(body[:1_000_000])
                got = await client.read()
                assert got.status == status
                assert got.headers["connection"] == "close"
                assert ("retry-after" in got.headers) == again
                if not expects:
                    await client.send(body[1_000_000:])
                with trio.fail_after(5):
                    assert await client.stream.receive_some(1) == b"", "an end, where a reset would be an error"
            assert proxied.ends[-1].received_bytes < len(body)
        assert proxied.state.admission.places.waiting == 0


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
