"""Serves an ASGI 3 application on sockets: accepts, watches deadlines, makes room under pressure, drains.

One nursery holds the connections, one task accepts, and one sweeps every `SWEEP_S`: it updates the coarse clock and the
Date line and wakes connections that have passed their deadline. When asked to stop, the server takes over the
connections in the kernel's queue, closes idle ones after a last check for input, answers started requests with
`Connection: close`, and cuts the rest after the drain time.

Under pressure (`max_connections`) an idle connection is closed to admit a new one (admission.py chooses it); when every
connection has a whole request in progress, the new one is refused with 503.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, Protocol, final

import msgspec
import structlog
import trio

from engram.http.admission import Admission
from engram.http.asgi import AsgiApp, HeaderLines, Scope, error_body
from engram.http.connection import Connection, Patience
from engram.http.head import Bounds, Refused
from engram.http.limits import ClientAddress, unmapped
from engram.http.sockets import Address, tune
from engram.http.tls import Certificates, transports
from engram.http.transport import turns
from engram.telemetry.seldom import Seldom

SWEEP_S: Final = 0.25
_ACCEPTED_AT_ONCE: Final = 64
_ACCEPTED_AT_THE_END: Final = 4_096
"""Connections taken over from the kernel's queue when the server stops; more than the queue holds."""
_NO_DESCRIPTORS_S: Final = 0.05
_LEAVING: Final = 64
"""Refused connections that are answered at the same time; further ones are closed without an answer."""

_log = structlog.get_logger("engram.http")


class Limits(msgspec.Struct, frozen=True):
    """What a server allows its clients."""

    bounds: Bounds = Bounds()
    patience: Patience = Patience()
    max_connections: int = 2_000
    max_per_address: int = 0
    """Connections of one address that is not a trusted proxy; 0 sets no bound."""
    trusted_proxies: tuple[str, ...] = ()


class Observer(Protocol):
    """Is called for what the server does without the application."""

    def refused(self, refused: Refused, client: str) -> tuple[str, HeaderLines]:
        """Record a request that is refused by its connection; return the request's id and headers to add."""
        ...

    def count_refusal(self, client: str) -> float:
        """Count a request refused at its head against the rate of its address; return 0.0, or the seconds to wait."""
        ...

    def dropped(self, code: str) -> None:
        """Record a connection that was refused (`busy`) or closed to make room (`evicted`)."""
        ...

    def count(self, connections: int) -> None:
        """Record how many connections are open now."""
        ...

    def for_anybody(self) -> HeaderLines:
        """Return headers to add to an answer whose request was not read."""
        ...


@final
class Server:
    """The open connections of one application's listeners."""

    def __init__(
        self,
        app: AsgiApp,
        bound: Address,
        limits: Limits,
        observer: Observer,
        certificates: Certificates | None = None,
    ) -> None:
        """Take the application and its limits; with `certificates` the server speaks TLS."""
        self.app = app
        self.bound = bound
        self.scope = _scope(bound, "http" if certificates is None else "https")
        self.bounds = limits.bounds
        self.patience = limits.patience
        self.now = trio.current_time()
        """trio's clock at the sweeper's last run."""
        self.date = b""
        """The Date line of answers."""
        self.draining = False
        self._second = 0
        self._proxies = ClientAddress(limits.trusted_proxies)
        self._open = Admission[Connection](limits.max_connections, limits.max_per_address, self._proxies)
        self._observer = observer
        self._turned_away = _turned_away(observer.for_anybody())
        self._secure = certificates is not None
        self._wrapped = transports(certificates, limits.patience.send_s)
        self.turns = turns
        self._leaving = 0
        self._cannot_accept = Seldom(1, 10.0, trio.current_time)

    def trust(self, proxies: tuple[str, ...]) -> None:
        """Exempt these networks from the bound per address from now on, and no others. Raises ValueError."""
        self._proxies.trust(proxies)

    async def run(
        self,
        listeners: Sequence[socket.socket],
        stop: trio.Event,
        drain_s: float,
        *,
        on_drain: Callable[[], None] = lambda: None,
    ) -> bool:
        """Serve until `stop` is set, then call `on_drain` and drain; closes the listeners.

        Returns whether every started request was answered within `drain_s`.
        """
        self._tick()
        async with trio.open_nursery() as sweeping:
            sweeping.start_soon(self._sweep)
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(self._accept, listener, connections)
                    await stop.wait()
                    accepting.cancel_scope.cancel()
                for listener in listeners:
                    self._take(listener, connections, _ACCEPTED_AT_THE_END)
                    listener.close()
                connections.cancel_scope.deadline = trio.current_time() + drain_s
                self.draining = True
                on_drain()
                for connection in self._open:
                    connection.drain()
            sweeping.cancel_scope.cancel()
        return not connections.cancel_scope.cancelled_caught

    async def _accept(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            if not self._take(listener, nursery):
                await trio.sleep(_NO_DESCRIPTORS_S)

    def _take(self, listener: socket.socket, nursery: trio.Nursery, most: int = _ACCEPTED_AT_ONCE) -> bool:
        """Accept waiting connections, up to `most`; return False when the process has no descriptor left."""
        for _ in range(most):
            try:
                sock, peer = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return True
            except OSError as error:
                if self._cannot_accept.wanted():
                    _log.warning("cannot_accept", error=str(error), **self._cannot_accept.facts)
                return False
            try:
                tune(sock)
            except OSError:  # the client disconnected meanwhile
                sock.close()
                continue
            self._admit(sock, unmapped(str(peer[0])), int(peer[1]), nursery)
        return True

    def _admit(self, sock: socket.socket, host: str, port: int, nursery: trio.Nursery) -> None:
        if not self._open.allows(host) or (self._open.full and not self._make_room()):
            self._turn_away(sock, nursery)
            return
        connection = Connection(self, self._wrapped(sock), (host, port))
        self._open.enter(host, connection)
        self._observer.count(len(self._open))
        nursery.start_soon(self._serve, connection)

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.run()
        except Exception:  # noqa: BLE001 -- the seam of a connection: what one client provokes ends only its own
            _log.exception("connection_failed")
        finally:
            self._open.leave(connection.client[0], connection)
            self._observer.count(len(self._open))

    def end(self, connection: Connection) -> None:
        """Note that a connection only awaits its client's closing: it goes first when there is no room."""
        self._open.end(connection)

    def _make_room(self) -> bool:
        connection = self._open.to_evict()
        if connection is None:
            return False
        self._open.leave(connection.client[0], connection)
        connection.transport.close()
        self._observer.dropped("evicted")
        return True

    def _turn_away(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        self._observer.dropped("busy")
        if not self._secure:  # a client in its TLS handshake would read it as a broken record
            with contextlib.suppress(OSError):
                sock.send(self._turned_away)
        if self._leaving >= _LEAVING or self._secure:
            sock.close()
            return
        self._leaving += 1
        nursery.start_soon(self._see_off, sock)

    async def _see_off(self, sock: socket.socket) -> None:
        """Read what the client has sent, so that no TCP reset overtakes the answer."""
        try:
            with trio.move_on_after(self.patience.linger_s), contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
                while True:
                    await trio.lowlevel.wait_readable(sock)
                    if not sock.recv(65_536):
                        break
        finally:
            self._leaving -= 1
            sock.close()

    def count_refusal(self, client: str) -> float:
        """Count a refused request of an address; return 0.0, or the seconds to wait where there were too many."""
        return self._observer.count_refusal(client)

    def refusal(self, refused: Refused, client: str) -> bytes:
        """Return the answer to a request that does not reach the application; it closes the connection."""
        request_id, headers = self._observer.refused(refused, client)
        body = error_body(refused.message, refused.code, request_id)
        lines = [
            b"HTTP/1.1 %d %b" % (refused.status, HTTPStatus(refused.status).phrase.encode("ascii")),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"connection: close",
            _UNCACHED,
            *(b"%b: %b" % line for line in headers),
            *((_ALLOW,) if refused.status == 405 else ()),
            *((b"retry-after: %d" % refused.retry_s,) if refused.retry_s else ()),
        ]
        head = b"\r\n".join(lines) + b"\r\n" + self.date + b"\r\n"
        return head if refused.bodyless else head + body

    # The clock.

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(SWEEP_S)
            self._tick()
            for connection in self._open:
                connection.transport.sweep(self.now)

    def _tick(self) -> None:
        self.now = trio.current_time()
        if (second := int(time.time())) != self._second:
            self._second = second
            self.date = b"date: %b\r\n" % formatdate(second, usegmt=True).encode("ascii")


_ALLOW: Final = b"allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
"""A 405 must have it (RFC 9110, 15.5.6): of the methods in common use, those that reach an application."""
_UNCACHED: Final = b"cache-control: no-store"
"""A 405 and a 501 may be kept by caches unless they forbid it (RFC 9110, 15.1)."""
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
"""Not 2.4: there `send` must raise once the client has disconnected, and here the application runs on."""


def _scope(bound: Address, scheme: str) -> Scope:
    """Return what the ASGI scopes of all requests have in common."""
    return {
        "type": "http",
        "asgi": _ASGI,
        "scheme": scheme,
        "root_path": "",
        "server": (bound.host, bound.port),
    }


_BUSY: Final = error_body("too many connections; try again in a moment", "busy", None)


def _turned_away(headers: HeaderLines) -> bytes:
    """Return the 503 for a connection that there is no room for."""
    lines = [
        b"HTTP/1.1 503 Service Unavailable",
        b"content-type: application/json",
        _UNCACHED,
        b"retry-after: 1",
        b"connection: close",
        b"content-length: %d" % len(_BUSY),
        *(b"%b: %b" % line for line in headers),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + _BUSY
