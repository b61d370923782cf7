"""Other people's load generators against the bare server: no error at full load, and slow clients hold up only their
own address."""

import re
import shutil
import subprocess
from contextlib import suppress
from functools import partial

import pytest
import trio

from engram.http.asgi import Receive, Scope, Send, respond
from engram.http.connection import Patience
from engram.http.server import Limits
from tests.http.servers import Bare, bare

pytestmark = pytest.mark.heavy

GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
BIG = b"x" * 1_000_000


def needs(command: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(command) is None, reason=f"there is no {command} here")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    await respond(send, 200, BIG if scope["path"] == "/big" else b"hello")


async def output(*command: str) -> str:
    done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
    return done.stdout.decode()


@needs("wrk")
async def test_wrk_sees_no_error() -> None:
    async with bare(app) as running:
        said = await output("wrk", "-t1", "-c64", "-d3s", f"http://127.0.0.1:{running.port}/")
        assert int(re.search(r"(\d+) requests in", said)[1]) > 1_000  # type: ignore[index]  # it says so
    assert "Non-2xx" not in said
    assert "Socket errors" not in said


@needs("h2load")
async def test_h2load_gets_every_answer() -> None:
    async with bare(app) as running:
        said = await output("h2load", "--h1", "-n5000", "-c50", "-m10", f"http://127.0.0.1:{running.port}/")
    assert "5000 succeeded, 0 failed, 0 errored, 0 timeout" in said


ATTACKS = {
    "slow heads": ("-H", "-i", "1"),
    "slow bodies": ("-B", "-i", "1", "-s", "100000"),
    "slow reading": ("-X", "-w", "1", "-y", "2", "-n", "1", "-z", "1", "-k", "3"),
}


@needs("slowhttptest")
@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_client_of_another_address_is_served_at_once_while_one_is_slow(attack: str) -> None:
    limits = Limits(max_connections=200, max_per_address=150, patience=Patience(head_s=3, body_s=3, send_s=3))
    async with bare(app, limits) as running, trio.open_nursery() as nursery:
        url = f"http://127.0.0.1:{running.port}/big"
        command = ("slowhttptest", *ATTACKS[attack], "-c", "400", "-r", "200", "-l", "8", "-u", url)
        attacker = await nursery.start(partial(trio.run_process, command, check=False, stdout=subprocess.DEVNULL))
        served = 0
        while attacker.poll() is None:
            with trio.fail_after(1):
                assert await served_to("127.0.0.2", running)
            served += 1
            await trio.sleep(0.2)
    assert served > 10
    assert running.noted.connections <= 200


async def test_a_client_of_another_address_is_served_at_once_while_several_send_slow_bodies() -> None:
    """slowhttptest knows one address; here eight open again what is closed, and send a byte at a time."""
    limits = Limits(max_connections=200, max_per_address=50, patience=Patience(body_s=20))
    head = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n"

    async def attack(address: str) -> None:
        while True:
            with suppress(OSError, trio.BrokenResourceError):
                stream = await trio.open_tcp_stream("127.0.0.1", running.port, local_address=address)
                async with stream:
                    await stream.send_all(head)
                    while True:
                        await stream.send_all(b"x")
                        await trio.sleep(0.5)
            await trio.sleep(0.1)

    async with bare(app, limits) as running, trio.open_nursery() as nursery:
        for number in range(400):
            nursery.start_soon(attack, f"127.0.1.{1 + number % 8}")
        while running.noted.connections < 200:  # noqa: ASYNC110 -- the attackers tell nobody
            await trio.sleep(0.05)
        for _ in range(30):
            with trio.fail_after(2):
                assert await served_to("127.0.0.2", running)
            await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert "evicted" in running.noted.drops


async def served_to(address: str, running: Bare) -> bool:
    stream = await trio.open_tcp_stream("127.0.0.1", running.port, local_address=address)
    async with stream:
        await stream.send_all(GET)
        return bytes(await stream.receive_some(65_536)).startswith(b"HTTP/1.1 200 ")
