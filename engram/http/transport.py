"""Reads and writes one connection on a plain socket, with deadlines that cost nothing while they are met.

To end a wait early, the server calls `notify_closing`, which raises ClosedResourceError in every task that waits on the
socket. `read` and `write` then check the reason: their deadline has passed (the sweeper has set it to `LATE`), the
server wants the connection to check its state, or the call was meant for the other task.
"""

import socket
from itertools import count
from math import inf
from select import EPOLLRDHUP, epoll
from typing import Final, TypeAlias

import trio
from trio.lowlevel import notify_closing, wait_readable, wait_writable

ClientAddress: TypeAlias = tuple[str, int]

turns: Final = count(1)
"""Increasing numbers, finer than the clock, that order connections by how long they have waited."""
LATE: Final = -1.0
READ_BYTES: Final = 65_536
LEAST_BYTES_A_S: Final = 4_096
"""A client that takes less for longer than `send_s` is given up, however regularly it takes a little."""


class Late(Exception):
    """A wait for the client was ended: its deadline has passed, or the server called the connection back."""


class Transport:
    """Reads and writes one accepted socket, which is non-blocking and belongs to this object."""

    __slots__ = (
        "_reading",
        "_writing",
        "broken",
        "called_back",
        "cut",
        "damaged",
        "read_due",
        "send_s",
        "sock",
        "stuck_at",
        "stuck_since",
        "write_due",
    )

    secure = False

    def __init__(self, sock: socket.socket, send_s: float) -> None:
        self.sock = sock
        self.send_s = send_s
        self.read_due = inf
        """The deadline of a wait for bytes, on trio's clock; LATE once the sweeper has seen it pass."""
        self.write_due = inf
        self.called_back = False
        """Whether the next wait for bytes ends at once with Late."""
        self.broken = False
        """Whether writing is no longer possible."""
        self.damaged = False
        """Whether input ended by a TLS error instead of by its sender."""
        self.cut = False
        """Whether input ended without TLS's close_notify: anybody between may have ended it (RFC 9112, 9.8)."""
        self.stuck_at = inf
        """The time of the last progress of a write that waits for the client, on trio's clock; inf when none does."""
        self.stuck_since = 0
        """The turn of that progress."""
        self._reading = False
        self._writing = False

    async def open(self, due: float) -> bool:
        """Prepare to carry requests, before `due`; return whether that succeeded."""
        return True

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end of input. Raises Late, OSError, ClosedResourceError."""
        while True:
            if self.called_back or self.read_due == LATE:
                self._look_at_deadline()
            if self._reading:
                raise trio.BusyResourceError("another task waits for this client's bytes")
            number = self._number()
            self._reading = True
            try:
                await wait_readable(number)
            except trio.ClosedResourceError:
                self._number()
                self._look_at_deadline()
            finally:
                self._reading = False
            try:
                return self.sock.recv(READ_BYTES)
            except BlockingIOError:
                continue

    def _number(self) -> int:
        """Return the socket's descriptor. Raises ClosedResourceError for a closed one: its number may be reused."""
        if (number := self.sock.fileno()) < 0:
            raise trio.ClosedResourceError("the connection was closed")
        return number

    def _look_at_deadline(self) -> None:
        if self.called_back or self.read_due == LATE:
            self.called_back, self.read_due = False, inf
            raise Late

    async def hung_up(self) -> None:
        """Return once the other side has ended or broken the connection, whatever of its bytes is still unread."""
        with epoll(1) as watched:  # trio waits for bytes, which hide the end behind them
            watched.register(self._number(), EPOLLRDHUP)
            await wait_readable(watched.fileno())

    def has_bytes(self) -> bool:
        """Return whether bytes wait to be read."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except OSError:  # nothing now, or nothing ever more
            return False

    def is_quiet(self) -> bool:
        """Return whether the connection is open and has no unread input."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def read_now(self) -> bytes:
        """Return what has arrived already; b"" when nothing has. Raises OSError."""
        try:
            return self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return b""

    async def write(self, *parts: bytes) -> None:
        """Pass bytes to the kernel, waiting for room.

        When the client takes nothing for `send_s`, or too little (LEAST_BYTES_A_S), the connection is `broken` and
        later writes do nothing. The same holds when the writer is cancelled, so that lost bytes are never followed by
        later ones.
        """
        if self.broken:
            return
        try:
            if (sent := self._sent_at_once(parts)) is not None:
                await self._send(parts, sent)
        except (OSError, Late, trio.ClosedResourceError, trio.BrokenResourceError):
            self.broken = True
        except BaseException:
            self.broken = True
            raise

    def write_now(self, *parts: bytes) -> int | None:
        """Pass what the kernel takes without waiting; return how many bytes that were, None for all of them.

        The rest must be written next, by `write_rest`.
        """
        if self.broken:
            return None
        try:
            return self._sent_at_once(parts)
        except OSError:
            self.broken = True
            return None

    async def write_rest(self, parts: tuple[bytes, ...], sent: int) -> None:
        """Write all but the first `sent` bytes, as `write` does."""
        try:
            await self._send(parts, sent)
        except (OSError, Late, trio.ClosedResourceError, trio.BrokenResourceError):
            self.broken = True
        except BaseException:
            self.broken = True
            raise

    def _sent_at_once(self, parts: tuple[bytes, ...]) -> int | None:
        """Return how many bytes the kernel took without waiting, None for all of them. Raises OSError."""
        try:
            if len(parts) == 1:
                sent, size = self.sock.send(parts[0]), len(parts[0])
            else:
                sent, size = self.sock.sendmsg(parts), sum(map(len, parts))
        except BlockingIOError:
            return 0
        return None if sent == size else sent

    async def _send(self, parts: tuple[bytes, ...], sent: int) -> None:
        """Send all but the first `sent` bytes, waiting for room. Raises OSError, Late, ClosedResourceError."""
        due = trio.current_time() + self.send_s + sum(map(len, parts)) / LEAST_BYTES_A_S
        for part in parts:
            rest = memoryview(part)[sent:]
            sent = max(0, sent - len(part))
            while rest:
                self.stuck_at, self.stuck_since = trio.current_time(), next(turns)
                self.write_due = min(due, self.stuck_at + self.send_s)
                await self._writable()
                try:
                    rest = rest[self.sock.send(rest) :]
                except BlockingIOError:
                    continue
        self.write_due = self.stuck_at = inf

    async def _writable(self) -> None:
        number = self._number()
        self._writing = True
        try:
            await wait_writable(number)
        except trio.ClosedResourceError:
            if self.write_due == LATE or self.sock.fileno() < 0:
                raise Late from None
        finally:
            self._writing = False

    async def end(self) -> None:
        """End our side; the client may still send. Raises OSError."""
        self.sock.shutdown(socket.SHUT_WR)

    def sweep(self, now: float) -> None:
        """Wake tasks that have waited for the client past their deadline."""
        late = False
        if 0.0 <= self.read_due < now:
            self.read_due, late = LATE, self._reading
        if 0.0 <= self.write_due < now:
            self.write_due, late = LATE, late or self._writing
        if late:
            notify_closing(self.sock)

    def call_back(self) -> None:
        """End the current wait for bytes, or else the next one, with Late."""
        self.called_back = True
        if self._reading:
            notify_closing(self.sock)

    def end_wait(self) -> None:
        """End the current wait for bytes, if any, with Late."""
        if self._reading:
            self.call_back()

    def close(self) -> None:
        """Close the socket and wake the tasks that wait on it."""
        if self._reading or self._writing:
            notify_closing(self.sock)
        self.sock.close()
