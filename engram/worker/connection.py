"""One connection to an orchestrator: Socket.IO over a WebSocket, on the outbound HTTP seam.

    dialing --> handshake --> Engine.IO open --> namespace --> open --> lost

Each step has `connect_s`. An open connection is lost when the server closes it, breaks the protocol, is silent for its
own ping interval and timeout together, or takes nothing for `send_s`. The caller waits before it makes another. A
message that is too large is dropped, and the connection goes on.

The WebSocket is wsproto's by `engram.http`, not trio-websocket's, which is wsproto over trio as well: that one dials by
itself, past the one outbound seam with its deadlines, bounds and rules of addresses.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, TypeVar, final

import trio

from config.model import WorkerSettings
from engram.http.client import HttpClient
from engram.http.errors import BadAnswer, HttpError, TooLarge
from engram.http.websocket_client import WebSocketClient
from engram.worker import packets, rules
from engram.worker.errors import LinkLost
from engram.worker.packets import (
    BadPacket,
    Connected,
    ConnectionRefused,
    Decoder,
    Disconnected,
    Opened,
    OversizedPacket,
    Packet,
    Ping,
    SocketAck,
    SocketEvent,
)

QUERY: Final = "?EIO=4&transport=websocket"
HOTKEY_HEADER: Final = "X-Miner-Hotkey"
LEAST_PAYLOAD_BYTES: Final = 32_768
"""An introduction and the ids of running jobs fit into it; servers take 1,000,000 by default."""
MOST_PENDING: Final = 20_000
"""Acknowledgements that are waited for at once; the oldest are forgotten."""

OnAck = Callable[[list[Any]], None]
OnEvent = Callable[[SocketEvent], Awaitable[None]]
OnOversized = Callable[[SocketEvent | None], Awaitable[None]]
P = TypeVar("P", Opened, Connected)


@final
class Connection:
    """An open session. One task receives; any number send. `open_connection` makes one."""

    def __init__(self, socket: WebSocketClient, decoder: Decoder, opened: Opened, send_s: float) -> None:
        self._socket = socket
        self._decoder = decoder
        self._send_s = send_s
        self._pending: dict[int, OnAck] = {}
        self._next_id = 0
        self.opened = opened
        self.silent_s = rules.liveness_s(opened.ping_interval, opened.ping_timeout)
        """Seconds of silence after which the server is taken for dead."""
        self.lost = ""
        """Why no more can be sent; empty while it is open."""

    async def serve(self, on_event: OnEvent, on_oversized: OnOversized) -> NoReturn:
        """Hand out events until the connection is lost; answer pings, and hand out acknowledgements meanwhile.

        `on_oversized` is called for each message that was dropped for its size, with the event where that is known.
        Always raises LinkLost.
        """
        with trio.move_on_after(self.silent_s) as silence:
            while True:
                packet = await self._packet()
                if packet is not None:
                    await self._take(packet, on_event, on_oversized)
                silence.deadline = trio.current_time() + self.silent_s
        self.abort(f"the orchestrator was silent for {self.silent_s:g} s")
        raise LinkLost(self.lost)

    async def _take(self, packet: Packet, on_event: OnEvent, on_oversized: OnOversized) -> None:
        match packet:
            case SocketEvent():
                await on_event(packet)
            case SocketAck(ack_id, arguments):
                if (on_ack := self._pending.pop(ack_id, None)) is not None:
                    on_ack(arguments)
            case Ping():
                await self._send([packets.PONG])
            case OversizedPacket(dropped):
                if isinstance(dropped, SocketAck):
                    self._pending.pop(dropped.ack_id, None)
                await on_oversized(dropped if isinstance(dropped, SocketEvent) else None)
            case Disconnected():
                raise LinkLost("the orchestrator ended the session")
            case ConnectionRefused(reason):
                raise LinkLost(f"the orchestrator refused the session: {reason}", refused=True)
            case _:
                pass

    async def emit(self, name: str, *arguments: Any, on_ack: OnAck | None = None) -> bool:
        """Send an event; `on_ack` is called with the arguments of its acknowledgement. Return whether it was sent.

        Raises ValueError for what JSON cannot hold, and for more bytes than the orchestrator takes.
        """
        ack_id = None
        if on_ack is not None:
            ack_id, self._next_id = self._next_id, self._next_id + 1
        frames = self._fitting(packets.event_frames(name, list(arguments), ack_id))
        if on_ack is not None and ack_id is not None:
            if len(self._pending) >= MOST_PENDING:
                del self._pending[next(iter(self._pending))]
            self._pending[ack_id] = on_ack
        return await self._send(frames)

    async def acknowledge(self, ack_id: int, result: Any) -> bool:
        """Acknowledge an event; return whether that was sent. A result that is too large is replaced by an error."""
        try:
            frames = self._fitting(packets.ack_frames(ack_id, [result]))
        except ValueError as error:
            frames = packets.ack_frames(ack_id, [rules.unknown(str(error)).result])
        return await self._send(frames)

    async def close(self) -> None:
        """End the session in order: Socket.IO's disconnect, Engine.IO's close, the WebSocket's close frame."""
        await self._send([packets.DISCONNECT, packets.CLOSE])
        self.lost = self.lost or "closed here"
        await self._socket.close()

    def abort(self, reason: str) -> None:
        """Close at once; `receive` raises LinkLost with this reason."""
        self.lost = self.lost or reason
        self._socket.abort()

    async def _packet(self) -> Packet | None:
        try:
            frame = await self._socket.receive()
            if frame is None:
                raise LinkLost(self.lost or self._socket.closed)
            return self._decoder.feed(frame)
        except TooLarge:
            return self._decoder.drop()
        except (BadAnswer, BadPacket) as error:
            self.abort(f"the orchestrator broke the protocol: {error}")
            raise LinkLost(self.lost) from error

    def _fitting(self, frames: list[packets.Frame]) -> list[packets.Frame]:
        size, most = packets.size_of(frames), self.opened.max_payload
        if size > most:
            raise ValueError(f"Result has {size} bytes; the orchestrator takes {most}")
        return frames

    async def _send(self, frames: list[packets.Frame]) -> bool:
        if self.lost:
            return False
        if await self._socket.send(*frames, within_s=self._send_s):
            return True
        self.abort(self._socket.closed or "the connection was lost while sending")
        return False


async def open_connection(http: HttpClient, settings: WorkerSettings, hotkey: str) -> Connection:
    """Connect to the orchestrator and open the namespace `/`. Raises LinkLost."""
    base, path = settings.orchestrator_url.rstrip("/"), settings.socketio_path.rstrip("/")
    try:
        socket = await http.websocket(
            f"{base}{path}/{QUERY}",
            headers={HOTKEY_HEADER: hotkey},
            connect_s=settings.connect_s,
            answer_s=settings.connect_s,
            max_bytes=settings.max_message_bytes,
            drops_large=True,
        )
    except HttpError as error:
        raise LinkLost(f"no connection to the orchestrator: {error}") from error
    decoder = Decoder(settings.max_message_bytes)
    try:
        opened = await _expected(socket, decoder, Opened, settings.connect_s)
        if opened.max_payload < LEAST_PAYLOAD_BYTES:
            raise LinkLost(f"the orchestrator takes {opened.max_payload} bytes; {LEAST_PAYLOAD_BYTES} are needed")
        await socket.send(packets.CONNECT)
        await _expected(socket, decoder, Connected, settings.connect_s)
        return Connection(socket, decoder, opened, settings.send_s)
    except BaseException:
        socket.abort()
        raise


async def _expected(socket: WebSocketClient, decoder: Decoder, type_: type[P], within_s: float) -> P:
    """Return the packet of this type, which must be the next one but for pings. Raises LinkLost."""
    with trio.move_on_after(within_s):
        while True:
            try:
                frame = await socket.receive()
                packet = None if frame is None else decoder.feed(frame)
            except (BadAnswer, TooLarge, BadPacket) as error:
                raise LinkLost(f"the orchestrator speaks no Socket.IO: {error}") from error
            if isinstance(packet, type_):
                return packet
            if isinstance(packet, ConnectionRefused):
                raise LinkLost(f"the orchestrator refused the session: {packet.reason}", refused=True)
            if not isinstance(packet, Ping):
                raise LinkLost(socket.closed or "the orchestrator did not open a session of Socket.IO 5")
            await socket.send(packets.PONG)
    raise LinkLost(f"the orchestrator opened no session within {within_s:g} s")
