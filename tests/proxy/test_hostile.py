"""Slow and hostile clients, linted answers, and gigabytes: what takes minutes or other people's programs."""

import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest
import trio

from engram.proxy.settings.model import BodySettings, LimitSettings, ServerSettings
from tests.http.origin import answer, listen, read_head
from tests.http.servers import bare, echo
from tests.proxy.harness import calling, proxying, settings_for
from tests.proxy.lint import linted
from tests.proxy.process import ProxyProcess, document
from tests.proxy.signing import head, headers_of, raw, signed

GIB = 1_073_741_824
SLACK_BYTES = 67_108_864
REALLY_HELD = 20
"""Slots of the attacker's 40; with fewer the attack was none."""


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


async def test_what_is_no_request_counts_toward_the_rate_of_its_address() -> None:
    limits = LimitSettings(requests_per_minute_per_address=60, requests_per_minute_per_key=0)
    statuses = []
    async with proxying(settings_for(9, limits=limits)) as proxied:
        for _ in range(15):
            async with calling(proxied) as client:
                statuses.append((await client.ask(b"BAD\r\n\r\n")).status)
    assert (statuses[:10], set(statuses[10:])) == ([400] * 10, {429})


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
        most, served = 0, 0

        async def look() -> None:
            """Count the slots that are held, and ask as another address while most of them are."""
            nonlocal most, served
            sampled = proxied.state.metrics.registry.get_sample_value
            while True:
                held = int(sampled("engram_http_connections", {"surface": "proxy"}) or 0)
                most = max(most, held)
                if held >= REALLY_HELD:
                    async with calling(proxied, "127.0.0.2") as other:
                        assert (await other.ask(signed("/inference", b"served"))).body == b"served"
                    served += 1
                await trio.sleep(0.05)

        with tempfile.TemporaryDirectory() as folder:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                attack = partial(trio.run_process, command, cwd=folder, capture_stdout=True, check=False)
                async with trio.open_nursery() as attacking:
                    attacking.start_soon(attack)
                nursery.cancel_scope.cancel()
        assert REALLY_HELD <= most <= 40 + 1, "all of the attacker's, and one of the other's"
        assert served >= 5
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
    await stream.send_all(answer(b"%d bytes missing" % left))


async def pour(stream: trio.SocketStream) -> None:
    """Answer with a gigabyte."""
    await read_head(stream)
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % GIB)
    part = b"x" * 1_048_576
    for _ in range(GIB // len(part)):
        await stream.send_all(part)


WHOLE = b"0 bytes missing"
"""What `swallow` answers to a body that came whole."""


async def answered(stream: trio.SocketStream) -> tuple[int, int, bytes]:
    """The status of an answer, the bytes of its body up to its declared length, and the last of them."""
    received = await read_head(stream)
    begun, _, last = received.partition(b"\r\n\r\n")
    length = int(begun.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    seen = len(last)
    while seen < length and (part := await stream.receive_some(1_048_576)):
        seen += len(part)
        last = part
    return int(begun.split()[1]), seen, bytes(last[-1:])


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
            with trio.fail_after(240):
                status, received, last = await answered(stream)
            assert (status, received) == (200, GIB if way == "down" else len(WHOLE))
            assert last == (b"x" if way == "down" else WHOLE[-1:])
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
