"""Slow and hostile clients, linted answers, and gigabytes: what takes minutes or other people's programs."""

import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest
import trio
from httplint import HttpResponseLinter
from httplint.note import levels

from engram.proxy.settings.model import BodySettings, LimitSettings, ServerSettings
from tests.http.origin import answer, listen, read_head
from tests.http.servers import bare, echo
from tests.proxy.harness import calling, proxying, settings_for
from tests.proxy.process import ProxyProcess, document
from tests.proxy.signing import head, headers_of, raw, signed

GIB = 1_073_741_824
SLACK_BYTES = 67_108_864


def linted(status: int, headers: dict[str, str], body: bytes) -> list[str]:
    """What httplint calls bad in an answer or warns of, but for its explanation of what a status means."""
    linter = HttpResponseLinter()
    linter.base_uri = "http://miner.example/x"
    linter.process_response_topline(b"HTTP/1.1", str(status).encode(), b"")
    linter.process_headers([(name.encode(), value.encode()) for name, value in headers.items()])
    linter.feed_content(body)
    linter.finish_content(True)
    found = [note for note in linter.notes if not type(note).__name__.startswith("STATUS_")]
    return [f"{note.summary}" for note in found if note.level in (levels.BAD, levels.WARN)]


async def test_the_proxys_own_answers_have_nothing_bad_for_httplint() -> None:
    async with proxying(settings_for(9)) as proxied, calling(proxied) as client:
        for request in (
            raw("GET", "/"),
            raw("GET", "/status"),
            raw("GET", "/check/x"),
            raw("GET", "/capacity", b"", headers_of(b"", method="GET")),
            raw("GET", "/nowhere"),
            raw("GET", "/inference"),
            raw("POST", "/inference", b"{}"),
            signed("/inference"),
        ):
            got = await client.ask(request)
            assert linted(got.status, got.headers, got.body) == [], request[:40]


@pytest.mark.heavy
@pytest.mark.external
@pytest.mark.skipif(shutil.which("slowhttptest") is None, reason="there is no slowhttptest here (Debian has it)")
@pytest.mark.parametrize("how", [("-H",), ("-B",), ("-X",)], ids=["headers", "body", "read"])
async def test_slow_clients_hold_no_more_than_their_share_and_others_are_served(how: tuple[str, ...]) -> None:
    server = ServerSettings(
        host="127.0.0.1", port=0, max_connections_per_address=40, header_timeout_s=2, body_timeout_s=2, idle_timeout_s=2
    )
    async with bare(echo) as backend, proxying(settings_for(backend.port, server=server)) as proxied:
        command = [
            "slowhttptest",
            *how,
            "-c",
            "200",
            "-r",
            "200",
            "-i",
            "1",
            "-l",
            "6",
            "-u",
            f"{proxied.url}/inference",
        ]
        most = 0

        async def look() -> None:
            nonlocal most
            while True:
                value = proxied.state.metrics.registry.get_sample_value
                most = max(most, int(value("engram_http_connections", {"surface": "proxy"}) or 0))
                await trio.sleep(0.05)

        with tempfile.TemporaryDirectory() as folder:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                attack = partial(trio.run_process, command, cwd=folder, capture_stdout=True, check=False)
                async with trio.open_nursery() as attacking:
                    attacking.start_soon(attack)
                nursery.cancel_scope.cancel()
        assert most <= 40
        assert len(proxied.state.admission.addresses) == 0
        async with calling(proxied) as client:
            assert (await client.ask(signed("/inference", b"still"))).body == b"still"


def rss(pid: int) -> int:
    """Resident bytes of a process, at most so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(pid)


async def swallow(stream: trio.SocketStream) -> None:
    """Read a request of any length, and answer at its end."""
    received = await read_head(stream)
    length = int(received.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    left = length - len(received.partition(b"\r\n\r\n")[2])
    while left > 0 and (part := await stream.receive_some(262_144)):
        left -= len(part)
    await stream.send_all(answer(b"%d left" % left))


async def pour(stream: trio.SocketStream) -> None:
    """Answer with a gigabyte."""
    await read_head(stream)
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % GIB)
    part = b"x" * 1_048_576
    for _ in range(GIB // len(part)):
        await stream.send_all(part)


@pytest.mark.heavy
@pytest.mark.serial
@pytest.mark.parametrize("way", ["down", "up streamed", "up spooled"])
async def test_a_gigabyte_passes_in_little_memory(way: str, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        port = await listen(nursery, pour if way == "down" else swallow)
        bodies = {"max_bytes": 2 * GIB, "spool_bytes": 4 * GIB, "spool_dir": str(tmp_path)}
        auth = {"allowed_delta_ms": 600_000}
        with ProxyProcess(tmp_path, document(port, bodies=bodies, auth=auth)).start() as proxy:
            await trio.sleep(2.1)
            before = rss(proxy.pid)
            body = b"x" * GIB if way != "down" else b""
            headers = headers_of(body, digest=way == "up streamed")
            stream = await trio.open_tcp_stream("127.0.0.1", proxy.port)
            await stream.send_all(head("POST", "/train", len(body), headers))
            if body:
                await stream.send_all(memoryview(body))
            del body
            received = 0
            with trio.fail_after(240):
                while received < (GIB if way == "down" else 10) and (part := await stream.receive_some(1_048_576)):
                    received += len(part)
            assert received >= (GIB if way == "down" else 10)
            await stream.aclose()
            assert rss(proxy.pid) - before <= SLACK_BYTES
        nursery.cancel_scope.cancel()


async def test_strangers_cannot_use_up_the_places_of_a_proven_caller() -> None:
    limits = LimitSettings(
        requests_per_minute_per_address=0, requests_per_minute_per_key=0, concurrent_per_address=3, concurrent=2
    )
    async with bare(echo) as backend:
        settings = settings_for(backend.port, limits=limits, bodies=BodySettings(memory_bytes=1_000))
        async with proxying(settings) as proxied, calling(proxied) as one, calling(proxied) as two:
            body = b"x" * 100
            for client in (one, two):
                await client.send(head("POST", "/inference", 100, headers_of(body)) + body[:1])
            with trio.fail_after(5):
                while len(proxied.state.admission.addresses) < 2:
                    await trio.lowlevel.checkpoint()
            assert proxied.state.admission.places.taken == 0
            async with calling(proxied) as three:
                assert (await three.ask(signed("/inference", b"mine"))).body == b"mine"
