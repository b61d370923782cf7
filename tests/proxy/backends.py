"""Backends that misbehave, on real sockets."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from tests.http.origin import Conversation, answer, listen, read_head


class Backend:
    """What a scripted backend has seen."""

    def __init__(self) -> None:
        self.port = 0
        self.requests = 0
        self.connections = 0
        self.open = 0
        """Connections that are not closed."""
        self.began = trio.Event()
        """Set by the first request's head."""
        self.closed = trio.Event()
        """Set when the proxy has closed a connection."""
        self.go_on = trio.Event()
        """What scripts may wait for."""


@asynccontextmanager
async def backend(*steps: bytes | str | None) -> AsyncIterator[Backend]:
    """Answer each request by these steps: bytes are sent; `wait` waits for `go_on`, `hang` until the proxy closes,
    `trickle` sends chunks until then, `drip` header lines; `eof` closes its half of the connection, `reset` breaks it;
    without more steps the connection stays open for the next request."""
    seen = Backend()

    async def serve(stream: trio.SocketStream) -> None:
        seen.connections += 1
        seen.open += 1
        try:
            while await read_head(stream):
                seen.requests += 1
                seen.began.set()
                for step in steps:
                    match step:
                        case bytes():
                            await stream.send_all(step)
                        case "wait":
                            await seen.go_on.wait()
                        case "hang":
                            while await stream.receive_some(65_536):
                                pass
                            return
                        case "trickle" | "drip":
                            part = b"20\r\n" + b"x" * 32 + b"\r\n" if step == "trickle" else b"x: y\r\n"
                            with suppress(trio.BrokenResourceError):
                                while True:
                                    await stream.send_all(part)
                                    await trio.sleep(0.01)
                            return
                        case "eof":
                            await stream.send_eof()
                        case "reset":
                            stream.socket.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SO_LINGER 0
                            return
                        case "close":
                            return
                        case _:
                            raise AssertionError(step)
        finally:
            seen.open -= 1
            seen.closed.set()

    async with trio.open_nursery() as nursery:
        seen.port = await listen(nursery, serve)
        yield seen
        nursery.cancel_scope.cancel()


def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


__all__ = ["Backend", "Conversation", "answer", "backend", "closed_port"]
