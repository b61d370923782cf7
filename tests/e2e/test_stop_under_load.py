"""SIGTERM while clients are busy: every request that the gateway has read whole gets its answer."""

import re
import select
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.gateway_process import GatewayProcess
from tests.sampling import NIGHTLY

LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")
BODY = b'{"padding":"%b"}' % (b"x" * 100_000)
TIERS = b"GET /tiers HTTP/1.1\r\nHost: t\r\n\r\n"
ORDER = b"POST /sessions HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{}"
REQUESTS = (
    ((b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n", 200),),
    ((TIERS, 200),),
    ((ORDER, 401),),
    ((b"POST /sessions HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY), 401),),
    ((TIERS, 200),) * 8,
    ((TIERS, 200), (ORDER, 401), (TIERS, 200), (ORDER, 401)),
)
"""What a client sends at once, each with the status of its answer."""
NOTING = Path(__file__).with_name("data") / "noted_reads.py"


class Client:
    """Sends its requests again as soon as all are answered, until the server says or shows that it closes."""

    def __init__(self, port: int, asked: tuple[tuple[bytes, int], ...]) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.port = self.sock.getsockname()[1]
        self.asked = asked
        self.answers: list[int] = []
        self.sent = 0
        self.closing = False
        self._said = b""

    @property
    def waiting(self) -> bool:
        return len(self.answers) < self.sent

    def send(self) -> None:
        self.sent += len(self.asked)
        try:
            self.sock.sendall(b"".join(raw for raw, _ in self.asked))
        except (BrokenPipeError, ConnectionResetError):
            self.closing = True

    def open_after_reading(self) -> bool:
        """Take in what is there; whether the connection is still open."""
        try:
            part = self.sock.recv(262_144)
        except ConnectionResetError:
            part = b""
        self._said += part
        while (length := LENGTH.search(self._said)) is not None:
            head, found, body = self._said.partition(b"\r\n\r\n")
            if not found or len(body) < int(length[1]):
                break
            self.answers.append(int(head[9:12]))
            self.closing = b"\r\nconnection: close" in head.lower()
            self._said = body[int(length[1]) :]
        return bool(part)

    def owed(self, read_bytes: int) -> list[int]:
        """The statuses of the requests that are whole within so many bytes."""
        owed = list[int]()
        while read_bytes > 0:
            for raw, status in self.asked:
                read_bytes -= len(raw)
                if read_bytes >= 0:
                    owed.append(status)
        return owed


def ended_under_load(port: int, gateway: GatewayProcess, seconds: float) -> list[Client]:
    """The clients of a gateway that is told to stop while they are busy."""
    clients = [Client(port, REQUESTS[index % len(REQUESTS)]) for index in range(66)]
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


def read_of_each(noted: Path) -> Counter[int]:
    """The bytes that the gateway has read from each port, before it awaited only the client's closing."""
    read, ended = Counter[int](), set[int]()
    for line in noted.read_text().splitlines():
        port, size = map(int, line.split())
        if not size:
            ended.add(port)
        elif port not in ended:
            read[port] += size
    return read


@pytest.mark.parametrize("seconds", [0.5 + 0.37 * each for each in range(20 if NIGHTLY else 2)])
def test_every_request_that_was_read_whole_is_answered_when_the_gateway_is_told_to_stop(
    tmp_path: Path, seconds: float
) -> None:
    noted = tmp_path / "reads"
    environ = {"NOTED_READS": str(noted)}
    with GatewayProcess(tmp_path / "data", program=NOTING, environ=environ, is_warm=False).start() as gateway:
        clients = ended_under_load(urlsplit(gateway.url).port or 0, gateway, seconds)
        assert gateway.wait() == 0
    read = read_of_each(noted)
    print("answered", sum(len(client.answers) for client in clients))
    assert all(len(client.answers) > len(client.asked) for client in clients)
    short = {client.port: len(client.owed(read[client.port])) - len(client.answers) for client in clients}
    assert {port: missing for port, missing in short.items() if missing} == {}
    for client in clients:
        assert client.answers == client.owed(read[client.port])
