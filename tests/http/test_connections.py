"""Many connections over a long time: deadlines in virtual time, room under pressure, and nothing left behind."""

import gc
import random
import resource
import socket
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from engram.http.connection import Patience
from engram.http.server import Limits
from tests.descriptors import open_descriptors
from tests.http.servers import Bare, bare, echo
from tests.sampling import NIGHTLY, SEED

GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
HOURS = 24 if NIGHTLY else 1


class Peer:
    """The other end of a connection that no network is between: real sockets, under a virtual clock."""

    def __init__(self, running: Bare, nursery: trio.Nursery) -> None:
        self.sock, accepted = socket.socketpair()
        for sock in (self.sock, accepted):
            sock.setblocking(False)
        running.server._admit(accepted, "127.0.0.1", 1, nursery)

    async def read(self) -> bytes:
        await trio.lowlevel.wait_readable(self.sock)
        try:
            return self.sock.recv(65_536)
        except ConnectionError:
            return b""

    async def closed_after(self) -> float:
        """Seconds until the server ends the connection; what it says meanwhile is dropped."""
        began = trio.current_time()
        while await self.read():
            pass
        return trio.current_time() - began


PATIENCE = Patience(idle_s=30, head_s=10, body_s=20, send_s=30)


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [(b"", 30, 31), (b"GET / HT", 10, 12), (b"\r\n\r\n", 30, 31), (GET, 30, 31)],
    ids=["nothing", "half a head", "empty lines", "a request"],
)
async def test_a_silent_client_is_given_up_in_its_time(
    autojump_clock: MockClock, said: bytes, least: float, most: float
) -> None:
    async with bare(echo, Limits(patience=PATIENCE)) as running, trio.open_nursery() as nursery:
        peer = Peer(running, nursery)
        if said:
            peer.sock.send(said)
        assert least <= await peer.closed_after() <= most
        peer.sock.close()


async def test_half_a_body_is_answered_408_in_its_time(autojump_clock: MockClock) -> None:
    async with bare(echo, Limits(patience=PATIENCE)) as running, trio.open_nursery() as nursery:
        peer = Peer(running, nursery)
        peer.sock.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nhalf")
        began = trio.current_time()
        assert (await peer.read()).startswith(b"HTTP/1.1 408 ")
        assert 20 <= trio.current_time() - began <= 21
        peer.sock.close()


async def test_a_long_time_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    """Idle, busy, half-said and slow connections for a day (an hour outside the nightly run)."""
    until = trio.current_time() + HOURS * 3_600
    rng = random.Random(SEED)

    async def live(running: Bare, nursery: trio.Nursery, each_s: float, said: bytes) -> None:
        while trio.current_time() < until:
            peer = Peer(running, nursery)
            for _ in range(rng.randrange(1, 20)):
                try:
                    peer.sock.send(said)
                except OSError:
                    break
                with trio.move_on_after(each_s):
                    await peer.read()
                await trio.sleep(each_s)
            peer.sock.close()

    async with bare(echo, Limits(patience=PATIENCE)) as running:
        async with trio.open_nursery() as nursery:
            for each_s in (1, 7, 29, 31, 95):
                for said in (GET, GET[:9], GET + b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nx"):
                    nursery.start_soon(live, running, nursery, each_s, said)
        assert len(running.server._open) == 0
        assert running.noted.connections == 0


async def break_off(port: int, requests: int, rng: random.Random) -> None:
    """Send so many requests; of each connection's, one is cut, reset, half-closed or garbage."""
    while requests > 0:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            for _ in range(rng.randrange(1, 40)):
                requests -= 1
                raw = GET if rng.random() < 0.5 else b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc"
                try:
                    if not await ask(stream, raw, rng):
                        break
                except trio.BrokenResourceError:
                    break


async def ask(stream: trio.SocketStream, raw: bytes, rng: random.Random) -> bool:
    """Send one request, or something of it; whether the connection goes on."""
    match rng.randrange(12):
        case 0:
            await stream.send_all(raw[: rng.randrange(len(raw))])
        case 1:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.send_all(raw)
        case 2:
            await stream.send_all(raw)
            await stream.send_eof()
            await stream.receive_some()
        case 3:
            await stream.send_all(rng.randbytes(rng.randrange(1, 200)))
            await stream.receive_some()
        case _:
            await stream.send_all(raw)
            with trio.fail_after(60):
                assert await stream.receive_some()
            return True
    return False


async def break_off_many(port: int, requests: int, connections: int) -> None:
    rng = random.Random(SEED)
    async with trio.open_nursery() as nursery:
        for _ in range(connections):
            nursery.start_soon(break_off, port, requests // connections, rng)


async def test_resets_half_closes_and_cut_requests_leak_no_task_and_no_descriptor() -> None:
    tasks, before = trio.lowlevel.current_statistics().tasks_living, open_descriptors("socket:")
    with capture_logs():
        patience = Patience(idle_s=20, head_s=10, body_s=10)  # what is late here is the machine
        async with bare(echo, Limits(max_connections=10_000, patience=patience)) as running:
            await break_off_many(running.port, 4_000, 200)
            running.stop.set()
            with trio.fail_after(30):
                await running.stopped.wait()
            assert running.noted.connections == 0
    gc.collect()
    assert open_descriptors("socket:") - before == {}
    assert trio.lowlevel.current_statistics().tasks_living == tasks


SERVING = """
import logging, resource, structlog, trio
from engram.http.connection import Patience
from engram.http.server import Limits
from tests.http.servers import bare, echo
async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    patience = Patience(idle_s=20, head_s=10, body_s=10)
    async with bare(echo, Limits(max_connections=10_000, patience=patience)) as running:
        print(running.port, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


async def test_resets_half_closes_and_cut_requests_leave_the_memory_of_the_server_as_it_was() -> None:
    requests, connections = (100_000, 1_000) if NIGHTLY else (10_000, 100)
    async with trio.open_nursery() as nursery:
        command = (sys.executable, "-c", SERVING)
        child = await nursery.start(partial(trio.run_process, command, capture_stdout=False, stdout=subprocess.PIPE))
        port = int(await child.stdout.receive_some())
        held, resident = Path(f"/proc/{child.pid}/fd"), Path(f"/proc/{child.pid}/statm")

        async def kib() -> int:
            """When all connections are closed again."""
            with trio.fail_after(30):
                while len(list(held.iterdir())) > open_before:  # noqa: ASYNC110 -- it is another process
                    await trio.sleep(0.1)
            return int(resident.read_text().split()[1]) * resource.getpagesize() // 1_024

        open_before = len(list(held.iterdir()))
        await break_off_many(port, 4 * connections, connections)
        before = await kib()
        await break_off_many(port, requests, connections)
        grown = await kib() - before
        nursery.cancel_scope.cancel()
    print(f"{requests} requests over {connections} connections: {before} KiB, {grown:+} KiB")
    assert grown < 2_048


HOLDER = """
import selectors, socket, sys, time
port, addresses, each = map(int, sys.argv[1:])
selector = selectors.DefaultSelector()
def hold(address):
    sock = socket.socket()
    sock.bind((address, 0))
    sock.setblocking(False)
    sock.connect_ex(("127.0.0.1", port))
    selector.register(sock, selectors.EVENT_READ, address)
for index in range(addresses):
    for _ in range(each):
        hold(f"127.0.{1 + index // 200}.{1 + index % 200}")
print("holding", flush=True)
while True:
    for key, _ in selector.select():
        try:
            if key.fileobj.recv(1024):
                continue
        except OSError:
            pass
        selector.unregister(key.fileobj)
        key.fileobj.close()
        hold(key.data)
    time.sleep(0.05)
"""
"""Keeps idle connections from many addresses, and opens a new one soon for each that is closed."""


@pytest.mark.parametrize("addresses", [12, 200])
async def test_a_fresh_client_is_served_while_many_addresses_hold_idle_connections(addresses: int) -> None:
    each, limits = 1_200 // addresses, Limits(max_connections=400, max_per_address=256)
    async with bare(echo, limits) as running, trio.open_nursery() as nursery:
        command = (sys.executable, "-c", HOLDER, str(running.port), str(addresses), str(each))
        holder = await nursery.start(partial(trio.run_process, command, capture_stdout=False, stdout=subprocess.PIPE))
        await holder.stdout.receive_some()
        for _ in range(10):
            with trio.fail_after(10):
                async with await trio.open_tcp_stream("127.0.0.1", running.port) as stream:
                    await stream.send_all(GET)
                    assert (await stream.receive_some(65_536)).startswith(b"HTTP/1.1 200 ")
        nursery.cancel_scope.cancel()
