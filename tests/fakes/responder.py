"""A small HTTP/1.1 server on a real loopback socket that answers as a function says."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, nullcontext

import h11
import msgspec
import trio

Answer = tuple[int, dict[str, str], bytes | AsyncIterator[bytes]]
"""Status, headers, body; parts are sent as they come."""


class Asked(msgspec.Struct, frozen=True):
    """One request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Responder:
    """`answer` may wait, and closes the connection without an answer by returning None."""

    def __init__(self, answer: Callable[[Asked], Awaitable[Answer | None]], host: str = "127.0.0.1") -> None:
        self._answer = answer
        self._host = host
        self.asked: list[Asked] = []

    async def run(self, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled; its URL is what is started."""
        listeners = await trio.open_tcp_listeners(0, host=self._host)
        host = f"[{self._host}]" if ":" in self._host else self._host
        task_status.started(f"http://{host}:{listeners[0].socket.getsockname()[1]}")
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            while connection.our_state is not h11.MUST_CLOSE:
                asked = await _request(stream, connection)
                if asked is None:
                    return
                self.asked.append(asked)
                answer = await self._answer(asked)
                if answer is None:
                    return
                status, headers, content = answer
                if isinstance(content, bytes):
                    lines = [("content-length", str(len(content))), *headers.items()]
                    head = h11.Response(status_code=status, headers=lines)
                    parts = [head, h11.Data(data=content), h11.EndOfMessage()]
                    await stream.send_all(b"".join(connection.send(part) or b"" for part in parts))
                else:
                    lines = [("transfer-encoding", "chunked"), *headers.items()]
                    await stream.send_all(connection.send(h11.Response(status_code=status, headers=lines)) or b"")
                    async with aclosing(content) if isinstance(content, AsyncGenerator) else nullcontext(content):
                        async for part in content:
                            await stream.send_all(connection.send(h11.Data(data=part)) or b"")
                    await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
                if connection.our_state is h11.MUST_CLOSE:
                    return
                connection.start_next_cycle()
        except (trio.BrokenResourceError, h11.RemoteProtocolError, h11.LocalProtocolError):
            pass
        finally:
            with trio.CancelScope(shield=True):
                await stream.aclose()


async def _request(stream: trio.SocketStream, connection: h11.Connection) -> Asked | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        match event:
            case h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65_536))
            case h11.Request():
                head = event
            case h11.Data():
                body += event.data
            case h11.EndOfMessage() if head is not None:
                headers = {name.decode(): value.decode() for name, value in head.headers}
                return Asked(head.method.decode(), head.target.decode(), headers, bytes(body))
            case h11.ConnectionClosed():
                return None
            case _:
                pass
