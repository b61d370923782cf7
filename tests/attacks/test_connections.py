"""Nobody can take all connections, or all file descriptors, for himself."""

import resource
import socket
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from engram.http import descriptors
from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import GatewayProcess
from tests.http.harness import SETTINGS, connect, get, make_app, serving


async def test_one_address_gets_its_share_of_the_connections_and_no_more() -> None:
    bounded = msgspec.structs.replace(SETTINGS, max_connections_per_ip=2)
    app = make_app(bounded)
    async with serving(app, bounded) as running, connect(running) as first, connect(running) as second:
        assert ((await first.ask(get("/none"))).status, (await second.ask(get("/none"))).status) == (404, 404)
        async with connect(running) as third:
            answer = await third.ask(get("/none"))
            assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "busy", "1")
        await first.stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with connect(running) as fourth:
            assert (await fourth.ask(get("/none"))).status == 404


async def test_a_trusted_proxy_brings_as_many_connections_as_it_has_clients() -> None:
    bounded = msgspec.structs.replace(SETTINGS, max_connections_per_ip=1, trusted_proxies=("127.0.0.0/8",))
    async with serving(make_app(bounded), bounded) as running, connect(running), connect(running) as second:
        assert (await second.ask(get("/none"))).status == 404


def test_connections_leave_descriptors_for_the_work() -> None:
    for limit in (0, 256, 1_024, 65_536):
        assert 16 <= descriptors.for_connections(limit) <= max(16, limit // 3)


def test_the_limit_of_descriptors_is_raised_as_far_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(1_024, 4_096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.append(wanted))
    assert descriptors.raise_limit() == 4_096
    assert descriptors.raise_limit(2_000) == 4_096  # never lowered
    limits.append((1_024, resource.RLIM_INFINITY))
    assert descriptors.raise_limit(2_000) == 2_000
    limits.append((resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert descriptors.raise_limit() == descriptors.allowed() == descriptors.WANTED


def test_a_flood_of_connections_stops_neither_health_nor_sales_when_files_are_few(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data") as gateway:
        gateway.spawn()
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (300, 300))
        assert gateway.wait_ready(), gateway.log()
        host, port = "127.0.0.1", int(gateway.url.rpartition(":")[2])
        buyer = Buyer()
        kept = [socket.create_connection((host, port), timeout=5) for _ in range(30)]
        flood = [socket.create_connection((host, port), timeout=5) for _ in range(400)]
        for connection in flood:
            connection.close()
        buyer.quote(gateway.url)
        answer = buyer.pay(gateway.url)
        assert answer.status == 202
        assert buyer.wait(gateway.url, str(answer.body["session_id"]), "active")
        for connection in kept:
            connection.close()
        assert "Too many open files" not in gateway.log()
        assert gateway.terminate() == 0
