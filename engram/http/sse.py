"""Server-sent events: long answers that report events and end cleanly when the server drains.

A handler returns `event_stream(produce)`; `produce` sends events until there are no more. It is cancelled when the
client leaves or the server drains. Comments keep idle streams alive through proxies.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, final

import msgspec
import trio

from engram.http.asgi import Receive, Send
from engram.http.request import Stream

HEARTBEAT_S = 15.0
_RETRY_MS = 2_000


@final
class EventSink:
    """The producer's side of a stream; sending waits until the client has taken the event."""

    __slots__ = ("_last", "_lock", "_send")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lock = trio.Lock()
        self._last = trio.current_time()

    async def send(self, data: object, *, event: str | None = None, event_id: str | None = None) -> None:
        """Send one event: `data` as JSON, or unchanged when it is text. Ids and names have no line breaks."""
        await self._write(render(data, event=event, event_id=event_id))

    async def send_id(self, event_id: str) -> None:
        """Send only an event id: readers store it and dispatch no event (WHATWG HTML, section 9.2.6)."""
        await self._write(b"id: " + event_id.encode("ascii") + b"\n\n")

    async def heartbeat(self, interval_s: float) -> None:
        """Write a comment whenever nothing was sent for `interval_s`; runs until cancelled."""
        while True:
            await trio.sleep_until(self._last + interval_s)
            if trio.current_time() >= self._last + interval_s:
                await self._write(b": \n\n")

    async def _write(self, data: bytes) -> None:
        async with self._lock:
            self._last = trio.current_time()
            await self._send({"type": "http.response.body", "body": data, "more_body": True})


Producer: TypeAlias = Callable[[EventSink], Awaitable[None]]


class EventStream(Stream):
    """An answer whose body is produced while it is sent."""

    def __init__(self, produce: Producer, heartbeat_s: float) -> None:
        self.headers = {
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache, no-store",
            "X-Accel-Buffering": "no",
        }
        self._produce = produce
        self._heartbeat_s = heartbeat_s

    async def run(self, receive: Receive, send: Send, draining: trio.Event) -> None:
        """Send the body: until the producer returns, the client leaves, or the server drains."""
        sink = EventSink(send)
        await send({"type": "http.response.body", "body": b"retry: %d\n\n" % _RETRY_MS, "more_body": True})
        async with trio.open_nursery() as nursery:

            async def ends(awaited: Callable[[], Awaitable[Any]]) -> None:
                await awaited()
                nursery.cancel_scope.cancel()

            nursery.start_soon(ends, lambda: _disconnected(receive))
            nursery.start_soon(ends, draining.wait)
            nursery.start_soon(sink.heartbeat, self._heartbeat_s)
            nursery.start_soon(ends, lambda: self._produce(sink))


def event_stream(produce: Producer, *, heartbeat_s: float = HEARTBEAT_S) -> EventStream:
    """Return the answer that sends what `produce` sends. A framework's request is not available inside `produce`."""
    return EventStream(produce, heartbeat_s)


def render(data: object, *, event: str | None = None, event_id: str | None = None) -> bytes:
    """Return one event in wire format. Raises ValueError for an id or name with a line break or NUL.

    >>> render({"state": "active"}, event="session", event_id="7")
    b'id: 7\\nevent: session\\ndata: {"state":"active"}\\n\\n'
    """
    lines: list[bytes] = []
    for field, value in (("id", event_id), ("event", event)):
        if value is not None:
            if any(character in value for character in "\r\n\0"):
                raise ValueError(f"an event's {field} has no line breaks")
            lines.append(f"{field}: {value}".encode())
    text = data.encode("utf-8") if isinstance(data, str) else msgspec.json.encode(data)
    lines.extend(b"data: " + line for line in (text.splitlines() or [b""]))
    return b"\n".join(lines) + b"\n\n"


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
