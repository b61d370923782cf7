"""Outbound connections to a Unix domain socket, for servers of this machine that listen on no port."""

import socket
from math import inf
from typing import Final

import trio

from engram.http.errors import NotSent, reason
from engram.http.transport import Transport

_FULL_RETRY_S: Final = 0.01


async def dial_unix(path: str) -> Transport:
    """Connect to the socket at `path`. Raises NotSent.

    Waits while the server's backlog is full: the kernel says that a Unix socket is full (EAGAIN), not when it is no
    longer.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            await trio.lowlevel.checkpoint()
            try:
                sock.connect(path)
            except BlockingIOError:
                await trio.sleep(_FULL_RETRY_S)
            else:
                return Transport(sock, inf)
    except OSError as error:
        sock.close()
        raise NotSent(f"no connection to {path}: {reason(error)}") from error
    except BaseException:
        sock.close()
        raise
