"""Load over HTTP that costs little itself: requests are bytes made beforehand, one thread, raw sockets.

The client shares the cores with what it measures, so each figure comes with what the client took of one of them
(`Load.client_cpu`). Of an answer only what shows that it is a good one is looked at.
"""

import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias, final

import msgspec

Due: TypeAlias = tuple[float, bytes]
"""A request, and when (`time.perf_counter`) it is to be sent."""

_SILENCE_S: Final = 30
_SILENCE: Final = struct.pack("ll", _SILENCE_S, 0)
_PART: Final = memoryview(bytearray(262_144))


class Load(msgspec.Struct, frozen=True):
    """What a load did. `took_ms` is for each request, from when it was due to the last byte of its answer."""

    seconds: float
    took_ms: list[float]
    client_cpu: float
    """Seconds of CPU that the client used, for each second."""

    @property
    def per_s(self) -> float:
        """Answered requests a second."""
        return len(self.took_ms) / self.seconds


def percentile(took: Sequence[float], share: float) -> float:
    """Within what this share of them lies."""
    return sorted(took)[min(len(took) - 1, int(len(took) * share))]


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """Returns a whole HTTP/1.1 request."""
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    if body:
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def closed_loop(port: int, requests: Iterable[bytes], *, connections: int, seconds: float) -> Load:
    """Each connection sends its next request when it has the answer to its last, for `seconds` or until the last."""
    waiting, until = iter(requests), time.perf_counter() + seconds

    def at_once() -> Due | None:
        now = time.perf_counter()
        content = next(waiting, None) if now < until else None
        return None if content is None else (now, content)

    return _run(port, connections, at_once)


def open_loop(port: int, requests: Sequence[bytes], *, connections: int, per_s: float, seconds: float) -> Load:
    """A request is due each 1/`per_s` seconds, whether or not a connection is free: its wait for one counts."""
    began, numbers = time.perf_counter() + 0.05, iter(range(int(per_s * seconds)))

    def in_turn() -> Due | None:
        number = next(numbers, None)
        return None if number is None else (began + number / per_s, requests[number % len(requests)])

    return _run(port, connections, in_turn)


def _run(port: int, connections: int, following: Callable[[], Due | None]) -> Load:
    free = [Lane(port) for _ in range(connections)]
    lanes, took, ready = {lane.socket.fileno(): lane for lane in free}, list[float](), select.epoll()
    for number in lanes:
        ready.register(number, select.EPOLLIN)
    began, cpu = time.perf_counter(), time.process_time()
    coming = following()
    while len(free) < connections or coming is not None:
        now = time.perf_counter()
        while free and coming is not None and coming[0] <= now:
            lane = free.pop()
            lane.send(*coming)
            coming = following()
        wait = max(0.0, coming[0] - time.perf_counter()) if free and coming is not None else _SILENCE_S
        answered = _poll(ready, wait)
        if not answered and wait == _SILENCE_S:
            raise RuntimeError(f"no answer for {_SILENCE_S} s")
        for number, _ in answered:
            if lanes[number].receive() is not None:
                took.append(1_000 * (time.perf_counter() - lanes[number].due))
                free.append(lanes[number])
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    ready.close()
    for lane in lanes.values():
        lane.socket.close()
    return Load(seconds, took, used / seconds)


def _poll(ready: select.epoll, wait_s: float) -> list[tuple[int, int]]:
    if wait_s < 1.0:  # which epoll would round up to whole milliseconds
        select.select((ready,), (), (), wait_s)
        wait_s = 0.0
    return ready.poll(wait_s)


@final
class Lane:
    """One kept-alive connection. Raises RuntimeError for an answer that is not a good one."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_SILENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(None)  # by the kernel instead: Python's own asks it before every call
        for timeout in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.socket.setsockopt(socket.SOL_SOCKET, timeout, _SILENCE)
        self.due = 0.0
        self._received = bytearray()

    def __call__(self, content: bytes) -> bytes:
        """Sends a request and returns the body of its answer."""
        self.send(time.perf_counter(), content)
        while (body := self.receive()) is None:
            pass
        return body

    def send(self, due: float, content: bytes) -> None:
        """Sends a request that was due at that time."""
        self.due = due
        self.socket.sendall(content)

    def receive(self) -> bytes | None:
        """Takes in what is there; returns the body of the answer when it is whole."""
        try:
            size = self.socket.recv_into(_PART)
        except BlockingIOError:  # what the kernel's own timeout is told as
            raise RuntimeError(f"no answer for {_SILENCE_S} s") from None
        if not size:
            raise RuntimeError("the server closed the connection")
        self._received += _PART[:size]
        ends = self._received.find(b"\r\n\r\n")
        if ends < 0:
            return None
        at = self._received.index(b"content-length: ", 0, ends) + 16
        if len(self._received) - ends - 4 < int(self._received[at : self._received.index(b"\r\n", at)]):
            return None
        has_error = self._received.count(b'"error":') != self._received.count(b'"error":null')
        if has_error or not self._received.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the server answered {bytes(self._received[:400])!r}")
        body = bytes(self._received[ends + 4 :])
        self._received.clear()
        return body
