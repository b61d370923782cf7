"""The server's side of Engine.IO 4 and Socket.IO 5 over an ASGI WebSocket, or what stands for one: one namespace."""

import json
import secrets
from typing import Any

import trio

from engram.http.asgi import Receive, Send
from engram.worker.packets import Decoder, Frame, Ping, SocketAck, SocketEvent, ack_frames, event_frames

MAX_PAYLOAD = 1_000_000


class Session:
    """One connection of a worker."""

    def __init__(self, receive: Receive, send: Send, *, ping_s: float, patience_s: float) -> None:
        self._receive, self._send = receive, send
        self._ping_s, self._patience_s = ping_s, patience_s
        self._decoder = Decoder(MAX_PAYLOAD)
        self._acks: dict[int, trio.MemorySendChannel[Any]] = {}
        self._next = 0
        self.sid = secrets.token_hex(8)
        self.upgrades: list[str] = []
        self.authenticated = ""
        """The hotkey, once proven."""
        self.closed = trio.Event()
        self.pinged = trio.Event()
        """Set, and replaced, when the client has answered a ping."""

    async def open(self) -> bool:
        """Shake hands; return whether the client speaks the protocol."""
        opening = {
            "sid": self.sid,
            "upgrades": self.upgrades,
            "pingInterval": round(self._ping_s * 1000),
            "pingTimeout": round(self._patience_s * 1000),
            "maxPayload": MAX_PAYLOAD,
        }
        await self.raw("0" + json.dumps(opening))
        message = await self._receive()
        if message["type"] != "websocket.receive" or not str(message["text"]).startswith("40"):
            return False
        await self.raw("40" + json.dumps({"sid": self.sid}))
        return True

    async def events(self, on_event: Any) -> None:
        """Call `on_event(name, arguments, respond)` for each event until the client is gone, or silent."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ping)
                while True:
                    with trio.move_on_after(self._ping_s + self._patience_s):
                        if not await self._one(nursery, on_event):
                            break
                        continue
                    break
                nursery.cancel_scope.cancel()
        finally:
            self.closed.set()

    async def _one(self, nursery: trio.Nursery, on_event: Any) -> bool:
        message = await self._receive()
        if message["type"] != "websocket.receive":
            return False
        frame = message["text"] if message["text"] is not None else message["bytes"]
        if frame in ("41", "1"):
            return False
        if frame == "3":
            self.pinged.set()
            self.pinged = trio.Event()
        packet = self._decoder.feed(frame)
        if isinstance(packet, SocketAck):
            if (waiting := self._acks.pop(packet.ack_id, None)) is not None:
                waiting.send_nowait(packet.arguments)
        elif isinstance(packet, SocketEvent):
            nursery.start_soon(self._handled, packet, on_event)
        else:
            assert not isinstance(packet, Ping)
        return True

    async def _handled(self, packet: SocketEvent, on_event: Any) -> None:
        async def respond(*arguments: Any) -> None:
            if packet.ack_id is not None:
                await self.frames(ack_frames(packet.ack_id, list(arguments)))

        await on_event(packet.name, packet.arguments, respond)

    async def _ping(self) -> None:
        while True:
            await trio.sleep(self._ping_s)
            await self.raw("2")

    async def emit(self, name: str, *arguments: Any) -> None:
        """Send an event."""
        await self.frames(event_frames(name, list(arguments)))

    async def call(self, name: str, *arguments: Any) -> Any:
        """Send an event; return the first argument of its acknowledgement, None when the client went before."""
        ack_id, self._next = self._next, self._next + 1
        sender, receiver = trio.open_memory_channel[Any](1)
        self._acks[ack_id] = sender
        await self.frames(event_frames(name, list(arguments), ack_id))
        answer: list[Any] = []

        async def wait(scope: trio.CancelScope) -> None:
            answer.append((await receiver.receive())[0])
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, nursery.cancel_scope)
            await self.closed.wait()
            nursery.cancel_scope.cancel()
        return answer[0] if answer else None

    async def frames(self, frames: list[Frame]) -> None:
        """Send frames as they are."""
        for frame in frames:
            await self.raw(frame)

    async def raw(self, frame: Frame) -> None:
        """Send one frame as it is."""
        is_text = isinstance(frame, str)
        await self._send(
            {"type": "websocket.send", "text": frame if is_text else None, "bytes": None if is_text else frame}
        )

    async def disconnect(self) -> None:
        """End the session as a server does."""
        await self.raw("41")
        await self._send({"type": "websocket.close", "code": 1000})
