"""What a process says to systemd, on a real notification socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from engram.service_manager import ServiceManager, credential


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def said(listening: socket.socket) -> list[str]:
    lines: list[str] = []
    while True:
        try:
            lines += listening.recv(4_096).decode().splitlines()
        except BlockingIOError:
            return lines


def test_readiness_reloading_and_stopping_are_said(systemd: socket.socket) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": systemd.getsockname()})
    manager.ready("gateway http://127.0.0.1:9000\nREADY=0")
    assert said(systemd) == ["READY=1", "STATUS=gateway http://127.0.0.1:9000 READY=0"]
    manager.reloading()
    reloading, since = said(systemd)
    assert (reloading, since[:15]) == ("RELOADING=1", "MONOTONIC_USEC=")
    manager.stopping("draining")
    assert said(systemd) == ["STOPPING=1", "STATUS=draining"]


def test_more_time_is_asked_for_while_the_ledger_is_opened_and_no_longer(systemd: socket.socket) -> None:
    systemd.setblocking(True)
    systemd.settimeout(20)
    with ServiceManager({"NOTIFY_SOCKET": systemd.getsockname()}).opening(every_s=0.01):
        for _ in range(3):
            assert systemd.recv(4_096) == b"EXTEND_TIMEOUT_USEC=20000\nSTATUS=opening the ledger"
    systemd.setblocking(False)
    said(systemd)
    with ServiceManager({}).opening(every_s=0.01):
        pass
    assert said(systemd) == []


def test_an_abstract_socket_is_reached_too() -> None:
    name = f"engram-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.setblocking(False)
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).ready("x")
        assert said(listening)[0] == "READY=1"


def test_nothing_is_said_to_nobody_and_a_manager_that_has_gone_is_no_error(tmp_path: Path) -> None:
    ServiceManager({}).ready("x")
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready("x")


async def test_the_watchdog_is_fed_three_times_in_its_period(systemd: socket.socket, autojump_clock: MockClock) -> None:
    environ = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    manager = ServiceManager(environ)
    assert manager.watchdog_s == 30.0
    with trio.move_on_after(59.0):
        await manager.feed_watchdog()
    assert said(systemd) == ["WATCHDOG=1"] * 6


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}])
async def test_without_a_watchdog_there_is_nothing_to_feed(environ: dict[str, str]) -> None:
    manager = ServiceManager(environ)
    assert manager.watchdog_s is None
    await manager.feed_watchdog()


def test_the_watchdog_of_another_process_is_not_ours() -> None:
    assert ServiceManager({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).watchdog_s is None


def test_a_credential_is_a_file_in_the_services_own_folder(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert credential("key", environ) == tmp_path / "key"
    assert credential("other", environ) is None
    assert credential("key", {}) is None
