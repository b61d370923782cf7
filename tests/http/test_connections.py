"""Many connections over a long time: deadlines in virtual time, room under pressure, and nothing left behind."""

import errno
import gc
import random
import resource
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from engram.http.asgi import Receive, Scope, Send, respond
from engram.http.connection import Patience
from engram.http.server import Limits
from tests.descriptors import connections_of
from tests.http.servers import Bare, bare, echo
from tests.sampling import NIGHTLY, SEED

GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
HOURS = 24 if NIGHTLY else 1


class Peer:
    """The other end of a connection that no network is between: real sockets, under a virtual clock."""

    def __init__(self, running: Bare, nursery: trio.Nursery, address: str = "127.0.0.1") -> None:
        self.sock, accepted = socket.socketpair()
        for sock in (self.sock, accepted):
            sock.setblocking(False)
        running.server._admit(accepted, address, 1, nursery)

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


async def test_a_body_that_came_in_time_is_served_however_late_it_is_asked_for(autojump_clock: MockClock) -> None:
    length, told = 300_000, list[object]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message, seen = await receive(), 0
        await trio.sleep(25)
        while message["type"] == "http.request":
            seen += len(message["body"])
            if not message["more_body"]:
                return await respond(send, 200, b"%d" % seen)
            message = await receive()
        told.append(message["refused"].code)
        return await respond(send, 408, b"late")

    async with bare(app, Limits(patience=PATIENCE)) as running, trio.open_nursery() as nursery:
        for sent in (length, length - 1):
            peer = Peer(running, nursery)
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * length)
            raw = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % length + b"x" * sent
            peer.sock.setblocking(True)
            peer.sock.sendall(raw[:150_000])
            await trio.testing.wait_all_tasks_blocked()
            peer.sock.sendall(raw[150_000:])
            peer.sock.setblocking(False)
            assert (await peer.read())[9:12] == (b"200" if sent == length else b"408")
            peer.sock.close()
    assert told == ["body_timeout"]


async def test_the_rest_of_a_head_that_comes_as_its_time_ends_is_served() -> None:
    async with bare(echo, Limits(patience=PATIENCE)) as running, trio.open_nursery() as nursery:
        peer = Peer(running, nursery)
        for sent in (GET[:9], GET[9:20]):
            peer.sock.send(sent)
            await trio.testing.wait_all_tasks_blocked(0.01)
        peer.sock.send(GET[20:])
        for connection in running.server._open:
            connection.transport.sweep(trio.current_time() + 60)
        with trio.fail_after(5):
            assert (await peer.read()).startswith(b"HTTP/1.1 200 ")
        peer.sock.close()


async def test_a_process_without_descriptors_says_so_seldom_and_serves_once_it_has_some(
    autojump_clock: MockClock,
) -> None:
    class Listening:
        """A listener whose connections cannot be taken over."""

        def accept(self) -> tuple[socket.socket, tuple[str, int]]:
            raise OSError(errno.EMFILE, "Too many open files")

    with capture_logs() as logged:
        async with bare(echo) as running, trio.open_nursery() as nursery:
            for _ in range(21 * 20):
                taken: Any = Listening()
                assert not running.server._take(taken, nursery)
                await trio.sleep(0.05)
            peer = Peer(running, nursery)
            peer.sock.send(GET)
            assert (await peer.read()).startswith(b"HTTP/1.1 200 ")
            peer.sock.close()
    said = [event.get("left_out", 0) for event in logged if event["event"] == "cannot_accept"]
    assert (len(said), said[0]) == (3, 0)
    assert 190 <= said[1] <= 210


async def test_a_long_time_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    """Idle, busy, half-said and slow connections for a day (an hour outside the nightly run)."""
    rng = random.Random(SEED)

    async def live(running: Bare, nursery: trio.Nursery, each_s: float, said: bytes, until: float) -> None:
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

    async def live_all(running: Bare, hours: float) -> tuple[int, int]:
        """Return the tasks and the allocated blocks that are left."""
        until = trio.current_time() + hours * 3_600
        async with trio.open_nursery() as nursery:
            for each_s in (1, 7, 29, 31, 95):
                for said in (GET, GET[:9], GET + b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nx"):
                    nursery.start_soon(live, running, nursery, each_s, said, until)
        gc.collect()
        return trio.lowlevel.current_statistics().tasks_living, sys.getallocatedblocks()

    async with bare(echo, Limits(patience=PATIENCE)) as running:
        tasks, blocks = await live_all(running, HOURS / 6)  # what is allocated once
        tasks_later, blocks_later = await live_all(running, HOURS)
        assert len(running.server._open) == 0
        assert running.noted.connections == 0
    served = next(running.server.turns)
    print(f"{served} turns: {blocks} blocks, {blocks_later - blocks:+}")
    assert tasks_later == tasks
    assert blocks_later - blocks < 500


async def break_off(port: int, requests: int, rng: random.Random) -> None:
    """Send so many requests; of each connection's, one is cut, silent, reset, half-closed or garbage."""
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
            await stream.send_all(raw[: (sent := rng.randrange(len(raw)))])
            if sent and rng.random() < 0.05:  # and is not heard of again
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 408 ")
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
    tasks = trio.lowlevel.current_statistics().tasks_living
    with capture_logs():
        patience = Patience(idle_s=120, head_s=2, body_s=2)  # what is idle for long waits for its turn
        async with bare(echo, Limits(max_connections=10_000, patience=patience)) as running:
            await break_off_many(running.port, 4_000, 200)
            running.stop.set()
            with trio.fail_after(30):
                await running.stopped.wait()
            assert running.noted.connections == 0
    gc.collect()
    assert connections_of(running.port) == []
    assert trio.lowlevel.current_statistics().tasks_living == tasks


SERVING = """
import logging, resource, signal, structlog, trio
from engram.http.connection import Patience
from engram.http.server import Limits
from tests.http.servers import bare, echo
async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    patience = Patience(idle_s=120, head_s=2, body_s=2)
    async with bare(echo, Limits(max_connections=10_000, patience=patience)) as running:
        with trio.open_signal_receiver(signal.SIGUSR1) as asked:
            print(running.port, flush=True)
            async for _ in asked:
                print(trio.lowlevel.current_statistics().tasks_living, flush=True)
trio.run(main)
"""


async def test_resets_half_closes_and_cut_requests_leave_the_memory_and_the_tasks_of_the_server_as_they_were() -> None:
    requests, connections = (100_000, 1_000) if NIGHTLY else (10_000, 100)
    async with trio.open_nursery() as nursery:
        command = (sys.executable, "-c", SERVING)
        child = await nursery.start(partial(trio.run_process, command, capture_stdout=False, stdout=subprocess.PIPE))

        async def said() -> int:
            """Return the number on its next line, which may come in pieces."""
            line = b""
            with trio.fail_after(30):
                while not line.endswith(b"\n"):
                    line += await child.stdout.receive_some()
            return int(line)

        port = await said()
        held, resident = Path(f"/proc/{child.pid}/fd"), Path(f"/proc/{child.pid}/statm")

        async def kib() -> int:
            """When all connections are closed again."""
            with trio.fail_after(30):
                while len(list(held.iterdir())) > open_before:  # noqa: ASYNC110 -- it is another process
                    await trio.sleep(0.1)
            return int(resident.read_text().split()[1]) * resource.getpagesize() // 1_024

        async def tasks() -> int:
            child.send_signal(signal.SIGUSR1)
            return await said()

        open_before = len(list(held.iterdir()))
        await break_off_many(port, requests // 5, connections)  # what is allocated once; later thousands add nothing
        before, tasks_before = await kib(), await tasks()
        await break_off_many(port, requests, connections)
        grown, tasks_grown = await kib() - before, await tasks() - tasks_before
        nursery.cancel_scope.cancel()
    print(f"{requests} requests over {connections} connections: {before} KiB, {grown:+} KiB")
    assert grown < 2_048
    assert tasks_grown == 0


@pytest.mark.parametrize("sent", [b"", b"some of the body"], ids=["nothing of it", "some of it"])
@pytest.mark.parametrize("path", [b"/", b"/unread"])
async def test_connections_whose_bodies_do_not_come_make_room(path: bytes, sent: bytes) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (respond(send, 200, b"at once") if scope["path"] == "/unread" else echo(scope, receive, send))

    async with bare(app, Limits(max_connections=40, max_per_address=10)) as running, AsyncExitStack() as stack:

        async def begin(address: str, raw: bytes) -> trio.SocketStream:
            opened = await trio.open_tcp_stream("127.0.0.1", running.port, local_address=address)
            stream = await stack.enter_async_context(opened)
            await stream.send_all(raw)
            return stream

        head = b"POST %b HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n" % path
        lone = await begin("127.0.0.9", head + b"x" * 99)
        for number in range(39):
            await begin(f"127.0.1.{number // 10}", head + sent)
        await trio.testing.wait_all_tasks_blocked(0.05)
        with trio.fail_after(5):
            for _ in range(20):
                fresh = await begin("127.0.0.1", GET)
                assert (await fresh.receive_some(65_536)).startswith(b"HTTP/1.1 200 ")
            await lone.send_all(b"x")
            assert (await lone.receive_some(65_536)).startswith(b"HTTP/1.1 200 "), "the crowded addresses pay"
        assert set(running.noted.drops) == {"evicted"}


@pytest.mark.parametrize(
    "raw", [b"BAD\r\n\r\n", GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")], ids=["refused", "answered"]
)
async def test_connections_that_only_await_their_clients_closing_make_room_first(raw: bytes) -> None:
    async with bare(echo, Limits(max_connections=12, max_per_address=4)) as running, AsyncExitStack() as stack:

        async def open_from(address: str, said: bytes) -> trio.SocketStream:
            opened = await trio.open_tcp_stream("127.0.0.1", running.port, local_address=address)
            stream = await stack.enter_async_context(opened)
            await stream.send_all(said)
            await stream.receive_some(65_536)
            return stream

        crowd = [await open_from("127.0.1.1", GET) for _ in range(4)]
        for number in range(8):  # one each, so that no address is crowded
            await open_from(f"127.0.2.{number + 1}", raw)
        with trio.fail_after(5):
            for _ in range(8):
                fresh = await trio.open_tcp_stream("127.0.0.1", running.port, local_address="127.0.0.9")
                async with fresh:
                    await fresh.send_all(GET)
                    assert (await fresh.receive_some(65_536)).startswith(b"HTTP/1.1 200 ")
        for stream in crowd:
            await stream.send_all(GET)
            assert (await stream.receive_some(65_536)).startswith(b"HTTP/1.1 200 "), "the idle ones stay"
        assert set(running.noted.drops) == {"evicted"}


async def test_clients_that_take_nothing_of_their_answers_make_room_and_one_that_reads_on_does_not(
    autojump_clock: MockClock,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, b"x" * 20_000_000 if scope["path"] == "/long" else b"short")

    async with bare(app, Limits(max_connections=5)) as running, trio.open_nursery() as nursery:

        async def read_on(peer: Peer) -> None:
            while True:
                await peer.read()
                await trio.sleep(0.1)

        peers = [Peer(running, nursery, f"192.0.2.{number}") for number in range(5)]
        for peer in peers:
            peer.sock.send(GET.replace(b"/", b"/long", 1))
        await trio.testing.wait_all_tasks_blocked()
        for peer in peers:
            peer.sock.send(GET)  # stays unread: nothing that is on its way
        nursery.start_soon(read_on, peers[0])
        await trio.sleep(1)
        refused = Peer(running, nursery)
        assert (await refused.read()).startswith(b"HTTP/1.1 503 "), "a second is no stop"
        await trio.sleep(1)
        for _ in range(4):
            fresh = Peer(running, nursery)
            fresh.sock.send(GET)
            assert (await fresh.read()).startswith(b"HTTP/1.1 200 ")
            fresh.sock.close()
            await trio.sleep(0.1)
        held = next(iter(running.server._open))
        assert (len(running.server._open), held.idle_since) == (4, None)
        assert Counter(running.noted.drops) == {"busy": 1, "evicted": 1}
        nursery.cancel_scope.cancel()
    for peer in (*peers, refused):
        peer.sock.close()


async def test_a_body_whose_answer_has_begun_does_not_make_room() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"both", "more_body": True})
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.body", "body": b""})

    async with (
        bare(app, Limits(max_connections=1)) as running,
        await trio.open_tcp_stream("127.0.0.1", running.port) as stream,
    ):
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\n")
        await stream.receive_some(65_536)
        async with await trio.open_tcp_stream("127.0.0.1", running.port) as other:
            assert (await other.receive_some(65_536)).startswith(b"HTTP/1.1 503 ")


def seconds_a_cpu_second() -> float:
    """Return how long this process waits for a second of a processor: 1 where nothing else runs."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    while (cpu_s := time.process_time() - began_cpu_s) < 0.05:
        pass
    return (time.perf_counter() - began_s) / cpu_s


@pytest.mark.parametrize("how", ["idle", "ended", "slow"])
@pytest.mark.parametrize("addresses", [12, 200])
async def test_a_fresh_client_is_served_within_a_second_while_many_addresses_hold_connections(
    addresses: int, how: str
) -> None:
    """A second of processor time, and no second of waiting beyond what a busy machine makes of that time.

    The connections are idle, or have ended but for the client's closing, or their clients do not read their answers.
    """
    long = b"x" * 300_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, long if scope["path"] == "/long" else b"short")

    async def plain(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")

    async def served_s(port: int) -> float:
        began = time.perf_counter()
        with trio.fail_after(20):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(GET)
                assert (await stream.receive_some(65_536)).startswith(b"HTTP/1.1 200 ")
        return time.perf_counter() - began

    each = (480 if how == "slow" else 1_200) // addresses
    limits = Limits(max_connections=400, max_per_address=256)
    async with bare(app, limits) as running, trio.open_nursery() as nursery:
        words = ("-m", "bench.support.idle_holder", str(running.port), str(addresses), str(each), how)
        command = (sys.executable, *words)
        holder = await nursery.start(partial(trio.run_process, command, capture_stdout=False, stdout=subprocess.PIPE))
        await holder.stdout.receive_some()
        beside = (await nursery.start(trio.serve_tcp, plain, 0))[0].socket.getsockname()[1]
        took_s, waited_s = list[float](), list[float]()
        for _ in range(10):
            busy = seconds_a_cpu_second()
            plain_s = await served_s(beside)
            began = time.process_time()
            took_s.append(await served_s(running.port))
            cpu_s = time.process_time() - began
            assert cpu_s < 1
            waited_s.append(took_s[-1] - cpu_s * busy - plain_s)
        nursery.cancel_scope.cancel()
    print(f"{addresses} addresses, {how}: median {statistics.median(took_s):.3f} s, slowest {max(took_s):.3f} s")
    assert "evicted" in running.noted.drops
    assert max(waited_s) < 1
