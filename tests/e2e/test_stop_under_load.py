"""SIGTERM while clients are busy: every request that the gateway has read whole gets its answer."""

import re
import select
import signal
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.gateway_process import GatewayProcess
from tests.sampling import NIGHTLY

LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")
BODY = b'{"padding":"%b"}' % (b"x" * 100_000)
REQUESTS = (
    b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /tiers HTTP/1.1\r\nHost: t\r\n\r\n",
    b"POST /sessions HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /sessions HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
)


class Client:
    """Sends its request again as soon as it is answered, until the server says or shows that it closes.

    A request that crosses the closing of an idle connection is never read, and the kernel answers it with a reset; one
    that the server has read before it closed gets a clean end. So a reset tells that no answer is owed.
    """

    def __init__(self, port: int, raw: bytes) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.raw = raw
        self.answered = 0
        self.waiting = self.closing = False
        self._said = b""

    def send(self) -> None:
        self.waiting = True
        try:
            self.sock.sendall(self.raw)
        except (BrokenPipeError, ConnectionResetError):
            self.waiting = False

    def open_after_reading(self) -> bool:
        """Take in what is there; whether the connection is still open."""
        try:
            part = self.sock.recv(262_144)
            reset = not part and self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
        except ConnectionResetError:
            part, reset = b"", True
        if reset:
            self.waiting = False
        self._said += part
        head, found, body = self._said.partition(b"\r\n\r\n")
        length = LENGTH.search(head + b"\r\n")
        if found and length is not None and len(body) >= int(length[1]):
            self.answered += 1
            self.waiting = False
            self.closing = b"\r\nconnection: close" in head.lower()
            self._said = b""
        return bool(part)


def ended_under_load(port: int, gateway: GatewayProcess, seconds: float) -> list[Client]:
    """The clients of a gateway that is told to stop while they are busy."""
    clients = [Client(port, REQUESTS[index % len(REQUESTS)]) for index in range(64)]
    ready, open_ones = select.epoll(), {client.sock.fileno(): client for client in clients}
    for client in clients:
        ready.register(client.sock, select.EPOLLIN)
        client.send()
    until, told = time.monotonic() + seconds, False
    while open_ones and time.monotonic() < until + 20:
        if not told and time.monotonic() > until:
            gateway.send_signal(signal.SIGTERM)
            told = True
        for number, _ in ready.poll(0.1):
            client = open_ones[number]
            if not client.open_after_reading():
                ready.unregister(number)
                del open_ones[number]
            elif not client.waiting and not client.closing:
                client.send()
    ready.close()
    for client in clients:
        client.sock.close()
    assert not open_ones, "the gateway left connections open"
    return clients


@pytest.mark.parametrize("seconds", [0.5 + 0.37 * each for each in range(20 if NIGHTLY else 2)])
def test_every_request_that_was_read_whole_is_answered_when_the_gateway_is_told_to_stop(
    tmp_path: Path, seconds: float
) -> None:
    with GatewayProcess(tmp_path / "data").start() as gateway:
        clients = ended_under_load(urlsplit(gateway.url).port or 0, gateway, seconds)
        assert gateway.wait() == 0
    print("answered", sum(client.answered for client in clients))
    assert [client.raw[:40] for client in clients if client.waiting] == []
