"""Listening sockets: of one's own, and those that a service manager hands down."""

import os
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import trio

from engram.http.listener import serve
from engram.http.sockets import Address, hand_down, listen, passed
from tests.http.harness import SETTINGS, Running, connect, get, make_app

CHILD = """
import os, trio
from engram.clock import ManualClock, SeededIds
from config.model import HttpSettings
from engram.http.app import new_app
from engram.http.listener import serve
from engram.telemetry.metrics import Metrics

class Host:
    def __init__(self):
        self.stop_requested = trio.Event()
    def ready(self, address):
        print(address.port, flush=True)

async def main():
    app = new_app("gateway", settings=HttpSettings(), clock=ManualClock(), ids=SeededIds(), metrics=Metrics())
    async def health():
        host.stop_requested.set()
        return 200, b"from the passed socket", []
    app.fast("/health", health)
    host = Host()
    await serve(app, "127.0.0.1", 0, context=host, settings=HttpSettings(), drain_s=1)

trio.run(main)
"""


def test_a_socket_held_by_the_service_manager_is_served_and_refuses_no_one_before() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        early = socket.create_connection(("127.0.0.1", port), timeout=20)  # before anything serves
        early.sendall(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n")
        # The shell puts the socket on descriptor 3 and becomes the process that LISTEN_PID names.
        command = f'exec 3<&{held.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=gateway exec "$0" -c "$1"'
        child = subprocess.Popen(
            ["bash", "-c", command, sys.executable, CHILD], pass_fds=(held.fileno(),), stdout=subprocess.PIPE
        )
        with child, early:
            assert child.stdout is not None
            assert int(child.stdout.readline()) == port
            assert early.recv(4_096).startswith(b"HTTP/1.1 200 ")
            assert child.wait(20) == 0


def test_sockets_meant_for_another_process_or_another_name_are_left_alone() -> None:
    assert passed({}, "gateway") == []
    assert passed({"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "gateway"}, "gateway") == []


def test_one_port_serves_all_addresses_of_a_name() -> None:
    listeners = listen("localhost", 0)
    try:
        assert len({Address.of(sock).port for sock in listeners}) == 1
    finally:
        for sock in listeners:
            sock.close()


def test_an_address_that_is_taken_is_an_error_that_names_it() -> None:
    (first,) = listen("127.0.0.1", 0)
    with first, pytest.raises(OSError, match=r"cannot listen on http://127\.0\.0\.1:\d+: Address already in use"):
        listen("127.0.0.1", Address.of(first).port)


def test_a_socket_on_a_path_is_refused_by_its_name(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(tmp_path / "s"))
        held.listen()
        first = 3
        names = ":" * (held.fileno() - first) + "gateway"
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(held.fileno() - first + 1)}
        with pytest.raises(ValueError, match=rf"descriptor {held.fileno()} \(gateway\) must listen on TCP"):
            passed({**environ, "LISTEN_FDNAMES": names}, "gateway")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
async def test_on_a_socket_of_both_families_a_trusted_proxy_is_known_by_its_ipv4_address() -> None:
    settings = msgspec.structs.replace(
        SETTINGS, trusted_proxies=("127.0.0.1/32",), requests_per_minute_per_ip=60, max_connections_per_ip=2
    )
    app, running = make_app(settings, name="both-families"), Running()

    async def serving() -> None:
        await serve(app, "127.0.0.1", 0, context=running, settings=settings)

    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as held:
        hand_down("both-families", os.dup(held.fileno()))
        async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
            nursery.start_soon(serving)
            await running.wait_ready()
            clients = [await stack.enter_async_context(connect(running)) for _ in range(3)]
            for number in range(40):
                answer = await clients[number % 3].ask(get("/nowhere", f"X-Forwarded-For: 203.0.113.{number}"))
                assert answer.status == 404, "the limits count the client, not its proxy"
            nursery.cancel_scope.cancel()
