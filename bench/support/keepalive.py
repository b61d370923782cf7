"""Kept-alive connections that each send the same request again and again: load whose own cost does not matter, since
only the server's CPU is counted. Any status, any spelling of headers, bodies by length or in chunks."""

import re
import select
import socket
import time
from collections.abc import Callable
from typing import Final, final

_CPUCLOCK_SCHED: Final = 2
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


def own_cpu_s(pid: int) -> float:
    """CPU seconds of one process, threads that have ended included: its CPU clock (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


@final
class _Connection:
    def __init__(self, port: int, status: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._status = b"HTTP/1.1 " + status
        self._received = bytearray()

    def send(self, raw: bytes) -> None:
        self.socket.sendall(raw)

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


@final
class KeptLoad:
    """Connections to one server, which are kept for as long as it is measured."""

    def __init__(self, port: int, pids: list[int], raw: Callable[[], bytes], status: bytes, connections: int) -> None:
        """Take what makes the request; it is called before each run."""
        self._pids, self._raw = pids, raw
        self._open: dict[int, _Connection] = {}
        self._ready = select.epoll()
        for _ in range(connections):
            connection = _Connection(port, status)
            self._open[connection.socket.fileno()] = connection
            self._ready.register(connection.socket, select.EPOLLIN)

    def run(self, seconds: float) -> tuple[float, int]:
        """Ask for so long, and wait for the last answers; returns the CPU seconds of the server and the answers."""
        raw, answered, waiting = self._raw(), 0, len(self._open)
        before, until = sum(map(own_cpu_s, self._pids)), time.perf_counter() + seconds
        for connection in self._open.values():
            connection.send(raw)
        while waiting:
            for number, _ in self._ready.poll(30):
                connection = self._open[number]
                if not connection.answered():
                    continue
                answered += 1
                if time.perf_counter() < until:
                    connection.send(raw)
                else:
                    waiting -= 1
        return sum(map(own_cpu_s, self._pids)) - before, answered

    def close(self) -> None:
        for connection in self._open.values():
            connection.socket.close()
        self._ready.close()
