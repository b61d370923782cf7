"""Outbound connections: resolving, connecting and TLS; and a pool of idle connections for each origin."""

import ipaddress
import os
import socket
import ssl
from collections import OrderedDict, deque
from itertools import islice
from math import inf
from typing import Final, final

import trio

from engram.http.errors import NotSent, reason
from engram.http.targets import Origin, Target
from engram.http.tls import TlsTransport
from engram.http.transport import Late, Transport

_ORIGINS: Final = 256
"""Origins whose idle connections are kept; beyond this those of the least recently used origin are closed."""

_LOOKS: Final = 4
"""How often idle connections are looked at within the time that they are kept."""


async def dial(target: Target, tls: ssl.SSLContext | None, address: str | None = None) -> Transport:
    """Connect to `address` (literal) or the target's host, over TLS where `tls` is given. Raises NotSent."""
    host = address or target.host
    try:
        sock = await _connect(host, target.port)
    except (OSError, UnicodeError) as error:
        raise NotSent(f"no connection: {reason(error)}") from error
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is None:
            return Transport(sock, inf)
        secured = TlsTransport(sock, inf, tls, target.host)
        await secured.shake_hands()
    except (OSError, ValueError, Late) as error:  # ssl.SSLError is an OSError; ValueError: not a valid host name
        sock.close()
        raise NotSent(f"no connection: {reason(error)}") from error
    except BaseException:
        sock.close()
        raise
    return secured


async def _connect(host: str, port: int) -> socket.socket:
    family = _literal_family(host)
    if family is None:
        stream = await trio.open_tcp_stream(host, port)
        plain = socket.socket(stream.socket.family, socket.SOCK_STREAM, fileno=stream.socket.detach())
        plain.setblocking(False)
        return plain
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        try:
            sock.connect((host, port))
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code)) from None
    except BaseException:
        sock.close()
        raise
    return sock


def _literal_family(host: str) -> socket.AddressFamily | None:
    """Return the address family of a literal IP address, which needs no resolver; None for a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


@final
class _Origin:
    __slots__ = ("idle", "in_use", "owed", "room")

    def __init__(self, room: int) -> None:
        self.room = trio.Semaphore(room)
        self.owed = 0
        """Places that are taken away as soon as they are given back."""
        self.in_use = 0
        """The number of requests that hold a place or wait for one."""
        self.idle: deque[tuple[float, Transport]] = deque()
        """Idle connections and since when, the longest idle first."""

    def give_back(self) -> None:
        """Give a place to the next request, or to nobody where there are too many."""
        if self.owed:
            self.owed -= 1
        else:
            self.room.release()

    def resize(self, more: int) -> None:
        """Add places, or take them away: those in use when they are given back."""
        for _ in range(more):
            self.give_back()
        for _ in range(-more):
            try:
                self.room.acquire_nowait()
            except trio.WouldBlock:
                self.owed += 1


@final
class Pools:
    """At most `room` connections for each origin, so that a server that hangs cannot exhaust the client.

        (none) -> dialled -> in use -> idle -> in use      one request holds one place and one connection
                     |          |        |
                     +----------+--------+-> closed        failed, cancelled, left half read | stale, unused too long

    A request holds its place in its own frame and gives it back in its `finally`. A connection in use is not known to
    the pool, so a request that is cancelled anywhere cannot leak it.
    """

    def __init__(self, room: int, keep_alive_s: float) -> None:
        self._room = room
        self._keep_alive_s = keep_alive_s
        self._origins: OrderedDict[Origin, _Origin] = OrderedDict()
        self._expiring = False

    async def enter(self, key: Origin) -> None:
        """Take a place, waiting for one in turn; call `leave` once for every `enter` that returned."""
        origin = self._known(key)
        origin.in_use += 1
        self._forget()
        try:
            try:
                origin.room.acquire_nowait()
            except trio.WouldBlock:
                await origin.room.acquire()
        except BaseException:
            origin.in_use -= 1
            raise

    def enter_now(self, key: Origin) -> bool:
        """Take a place if one is free at once, as `enter` does; return whether there was."""
        origin = self._known(key)
        try:
            origin.room.acquire_nowait()
        except trio.WouldBlock:
            return False
        origin.in_use += 1
        self._forget()
        return True

    def _known(self, key: Origin) -> _Origin:
        origin = self._origins.get(key)
        if origin is None:
            origin = self._origins[key] = _Origin(self._room)
        else:
            self._origins.move_to_end(key)
        return origin

    def take(self, key: Origin) -> Transport | None:
        """Return the most recently used idle connection that is still open; for a request that holds a place."""
        idle = self._origins[key].idle
        oldest = trio.current_time() - self._keep_alive_s
        while idle:
            since, wire = idle.pop()
            if since >= oldest and wire.is_quiet():
                return wire
            wire.close()
        return None

    def leave(self, key: Origin, kept: Transport | None = None, keep_s: float = inf) -> None:
        """Give a place back, and with it the connection if another request may use it, for at most `keep_s`."""
        origin = self._origins[key]
        origin.in_use -= 1
        if kept is not None:
            origin.idle.append((trio.current_time() - max(0.0, self._keep_alive_s - keep_s), kept))
            self._origins.move_to_end(key)
            if not self._expiring:
                self._expiring = True
                trio.lowlevel.spawn_system_task(self._expire)
        origin.give_back()

    def change(self, room: int, keep_alive_s: float) -> None:
        """Apply other bounds; connections in use stay, and count."""
        for origin in self._origins.values():
            origin.resize(room - self._room)
        self._room, self._keep_alive_s = room, keep_alive_s

    def close_others(self, kept: frozenset[Origin]) -> None:
        """Close the idle connections to all origins but these."""
        for key, origin in self._origins.items():
            if key not in kept:
                _close(origin)

    def close(self) -> None:
        """Close every idle connection."""
        for origin in self._origins.values():
            _close(origin)

    @property
    def idle(self) -> int:
        """The number of idle connections."""
        return sum(len(origin.idle) for origin in self._origins.values())

    async def _expire(self) -> None:
        """Close connections that have been idle for too long, while there are idle ones; at the loop's end, all."""
        try:
            while self.idle:
                await trio.sleep(self._keep_alive_s / _LOOKS)
                oldest = trio.current_time() - self._keep_alive_s
                for origin in self._origins.values():
                    while origin.idle and origin.idle[0][0] <= oldest:
                        origin.idle.popleft()[1].close()
        except trio.Cancelled:
            self.close()
            raise
        finally:
            self._expiring = False

    def _forget(self) -> None:
        """Forget origins that are not used any more, and close the least recently used ones beyond the bound."""
        for key, origin in list(islice(self._origins.items(), 2)):  # two for each request: none is left over
            if origin.in_use:
                self._origins.move_to_end(key)
            elif not origin.idle:
                del self._origins[key]
        if len(self._origins) > _ORIGINS:
            for key, origin in self._origins.items():
                if not origin.in_use:
                    _close(self._origins.pop(key))
                    return


def _close(origin: _Origin) -> None:
    while origin.idle:
        origin.idle.popleft()[1].close()
