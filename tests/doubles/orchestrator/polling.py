"""Engine.IO's other transport: packets by GET and POST, until the client has opened a WebSocket and moves to it.

Clients begin so unless they are told `transports: ["websocket"]`.
"""

import base64
from typing import Any

import trio

from engram.http.asgi import Message, Receive, Send, respond
from engram.worker.packets import Frame

SEPARATOR = "\x1e"
NOOP, PROBE, PROBED, MOVED = "6", "2probe", "3probe", "5"
MOST_WAITING = 1_000


class Polling:
    """A client that began by polling: it gives a Session what an ASGI WebSocket gives."""

    def __init__(self) -> None:
        self._came, self._coming = trio.open_memory_channel[Message](MOST_WAITING)
        self._going: list[Frame] = []
        self._news = trio.Event()
        self._moving = False
        self._websocket: Send | None = None

    async def receive(self) -> Message:
        """Return the next message of the client."""
        return await self._coming.receive()

    async def send(self, message: Message) -> None:
        """Send a message: over the WebSocket if the client has moved to it, else when it polls."""
        if self._websocket is not None:
            await self._websocket(message)
        elif message["type"] == "websocket.send":
            self._going.append(message["bytes"] if message["text"] is None else message["text"])
            self._wake()

    async def poll(self, send: Send) -> None:
        """Answer a GET, once there is something to be answered."""
        while not self._going and not self._moving:
            await self._news.wait()
        frames, self._going = self._going or [NOOP], []
        await respond(send, 200, SEPARATOR.join(map(_as_text, frames)).encode(), [(b"content-type", b"text/plain")])

    async def take(self, body: bytes, send: Send) -> None:
        """Answer a POST."""
        for text in body.decode().split(SEPARATOR):
            is_bytes = text.startswith("b")
            content = base64.b64decode(text[1:]) if is_bytes else None
            await self._came.send(_received(text=None if is_bytes else text, content=content))
        await respond(send, 200, b"ok", [(b"content-type", b"text/plain")])

    async def move(self, receive: Receive, send: Send) -> None:
        """Take the client over to its WebSocket, and serve that until it is gone."""
        await receive()
        await send({"type": "websocket.accept"})
        if (await receive()).get("text") != PROBE:
            return
        await send({"type": "websocket.send", "text": PROBED, "bytes": None})
        self._moving = True
        self._wake()
        if (await receive()).get("text") != MOVED:
            return
        frames, self._going, self._websocket = self._going, [], send
        for frame in frames:
            is_text = isinstance(frame, str)
            await send(
                {"type": "websocket.send", "text": frame if is_text else None, "bytes": None if is_text else frame}
            )
        message: Message = {}
        while message.get("type") != "websocket.disconnect":
            message = await receive()
            await self._came.send(message)

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()


def _as_text(frame: Frame) -> str:
    return frame if isinstance(frame, str) else "b" + base64.b64encode(frame).decode()


def _received(*, text: str | None, content: bytes | None) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": text, "bytes": content}
