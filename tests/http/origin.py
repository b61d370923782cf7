"""Scripted HTTP origins: real sockets whose every byte the test decides."""

import contextlib
from collections.abc import Awaitable, Callable

import trio

Conversation = Callable[[trio.SocketStream], Awaitable[None]]


async def listen(nursery: trio.Nursery, conversation: Conversation, host: str = "127.0.0.1") -> int:
    """Serve every connection by `conversation` and then close it; returns the port."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await conversation(stream)

    listeners = await trio.open_tcp_listeners(0, host=host)
    port: int = listeners[0].socket.getsockname()[1]
    nursery.start_soon(trio.serve_listeners, handle, listeners)
    return port


async def read_head(stream: trio.SocketStream) -> bytes:
    """Read until the end of a request's headers; what came of its body is included. Empty at the end of the stream."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = await stream.receive_some(65_536)
        if not chunk:
            return b""
        received += chunk
    return received


def answer(body: bytes = b'{"status":"ok"}', status: str = "200 OK", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *more, "", ""]
    return "\r\n".join(lines).encode() + body


def always(data: bytes) -> Conversation:
    """Answer every request of a connection with `data`."""

    async def conversation(stream: trio.SocketStream) -> None:
        while await read_head(stream):
            await stream.send_all(data)

    return conversation
