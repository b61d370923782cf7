"""Kept-alive connections that each send the same request again and again: load whose own cost does not matter, since
only the server's CPU is counted. Any status, any spelling of headers, bodies by length or in chunks."""

import os
import re
import select
import socket
import time
from pathlib import Path
from typing import Final, final

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


def own_cpu_s(pid: int) -> float:
    """CPU seconds of one process, threads that have ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@final
class _Connection:
    def __init__(self, port: int, raw: bytes, status: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._raw, self._status = raw, b"HTTP/1.1 " + status
        self._received = bytearray()

    def send(self) -> None:
        self.socket.sendall(self._raw)

    def answered(self) -> bool:
        """Take in what is there; whether the answer is whole. Raises RuntimeError for another status."""
        part = self.socket.recv(262_144)
        if not part:
            raise RuntimeError("the server closed the connection")
        self._received += part
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4:
            return False
        if not self._received.startswith(self._status):
            raise RuntimeError(f"the server answered {bytes(self._received[:300])!r}")
        length = _LENGTH.search(self._received, 0, end)
        whole = len(self._received) - end >= int(length[1]) if length else self._received.endswith(b"0\r\n\r\n")
        if whole:
            self._received.clear()
        return whole


def cpu_us(
    port: int, pids: list[int], raw: bytes, *, status: bytes = b"200", connections: int = 32, seconds: float = 2.0
) -> float:
    """Microseconds of CPU that these processes spend on one request."""
    open_ones = {}
    ready = select.epoll()
    for _ in range(connections):
        connection = _Connection(port, raw, status)
        open_ones[connection.socket.fileno()] = connection
        ready.register(connection.socket, select.EPOLLIN)
        connection.send()
    answered, began, until = 0, 0.0, time.perf_counter() + seconds + 0.3
    warm, before = time.perf_counter() + 0.3, 0.0
    while time.perf_counter() < until:
        if not began and time.perf_counter() >= warm:
            began, answered, before = time.perf_counter(), 0, sum(map(own_cpu_s, pids))
        for number, _ in ready.poll(5):
            connection = open_ones[number]
            if connection.answered():
                answered += 1
                connection.send()
    spent = sum(map(own_cpu_s, pids)) - before
    for connection in open_ones.values():
        connection.socket.close()
    ready.close()
    return spent * 1e6 / max(1, answered)
