"""Listening sockets: opened by address, or handed down by a service manager (sd_listen_fds(3))."""

import os
import socket
import stat
from collections.abc import Mapping
from typing import Final

import msgspec

_BACKLOG: Final = 1_024
_FIRST_PASSED_FD: Final = 3
_NOTSENT_LOWAT: Final = 25
"""Linux's TCP_NOTSENT_LOWAT, named in the socket module from Python 3.12."""
_UNSENT_BYTES: Final = 131_072


class Address(msgspec.Struct, frozen=True):
    """Where a server listens."""

    host: str
    port: int
    secure: bool = False
    """Whether it speaks TLS."""

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        scheme = "https" if self.secure else "http"
        return f"{scheme}://[{self.host}]:{self.port}" if ":" in self.host else f"{scheme}://{self.host}:{self.port}"

    @classmethod
    def of(cls, listener: socket.socket) -> "Address":
        """Return where this socket is bound."""
        bound = listener.getsockname()
        return cls(str(bound[0]), int(bound[1]))


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on every address that `host` resolves to; `port` 0 picks one free port for all. Raises OSError."""
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            sock = socket.socket(family, kind, protocol)
            listeners.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            chosen = Address.of(listeners[0]).port if len(listeners) > 1 else port
            sock.bind((address[0], chosen, *address[2:]))
            sock.listen(_BACKLOG)
    except OSError as error:
        for sock in listeners:
            sock.close()
        raise OSError(error.errno, f"cannot listen on {Address(host, port).url}: {error.strerror}") from error
    return listeners


_HANDED_DOWN: dict[str, list[int]] = {}


def hand_down(name: str, descriptor: int) -> None:
    """Let the surface called `name` listen on this descriptor, which the parent of this process has opened."""
    os.set_inheritable(descriptor, False)  # what this process starts does not hold it
    _HANDED_DOWN.setdefault(name, []).append(descriptor)


def passed(environ: Mapping[str, str], name: str) -> list[socket.socket]:
    """Return the listening sockets called `name` (LISTEN_FDNAMES) that the service manager holds for this process, or
    that its parent has handed down.

    Empty where there are none, or where they were meant for another process. Raises ValueError for a descriptor that is
    not a listening stream socket.
    """
    sockets = []
    for descriptor in (*_HANDED_DOWN.get(name, ()), *_held(environ, name)):
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise ValueError(f"descriptor {descriptor} ({name}) for this process to listen on is no socket")
        os.set_inheritable(descriptor, False)  # no child holds it, or it would stay open after this process
        sock = socket.socket(fileno=os.dup(descriptor))
        if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.close()
            raise ValueError(f"descriptor {descriptor} ({name}) does not listen for streams")
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            sock.close()
            raise ValueError(f"descriptor {descriptor} ({name}) must listen on TCP, not on a path")
        sock.setblocking(False)
        sockets.append(sock)
    return sockets


def given_hosts(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (surface, host) of every socket that `passed` gives this process. Raises what it raises."""
    names = dict.fromkeys((*_HANDED_DOWN, *environ.get("LISTEN_FDNAMES", "").split(":")))
    hosts = []
    for name in names:
        for sock in passed(environ, name):
            with sock:
                hosts.append((name, Address.of(sock).host))
    return hosts


def _held(environ: Mapping[str, str], name: str) -> list[int]:
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    count = int(environ.get("LISTEN_FDS", "0"))
    return [_FIRST_PASSED_FD + index for index, found in enumerate(names[:count]) if found == name]


def tune(sock: socket.socket) -> None:
    """Make an accepted socket ready to serve."""
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Without it a stream runs megabytes ahead of a slow reader before its progress is noticed.
        sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _UNSENT_BYTES)
