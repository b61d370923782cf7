"""The wire form of Engine.IO 4 and Socket.IO 5 over a WebSocket, without any I/O.

    text frame    <Engine.IO type>[<Socket.IO type>[<attachments>-][<namespace>,][<ack id>][JSON]]
    binary frame  an attachment of the packet before it, in the order of its placeholders

A value of `bytes` stands in the JSON as `{"_placeholder": true, "num": n}`. Sources: engine.io-protocol v4,
socket.io-protocol v5. Written here because python-socketio's codec cannot be imported without its clients and servers
(190 modules, 14 MB), and because what it leaves open is bounded here: attachments, digits, depth.
"""

import re
from typing import Any, Final, TypeAlias, final

import msgspec

from engram import wire

MOST_ATTACHMENTS: Final = 64
_SHAPE: Final = re.compile(r"([0-6])(?:([0-9]{1,3})-)?(?:(/[^,]{0,200}),)?([0-9]{1,15})?(.*)", re.DOTALL)
_BINARY_EVENT, _BINARY_ACK = "5", "6"

Frame: TypeAlias = str | bytes
"""What one WebSocket message carries."""


class BadPacket(Exception):
    """The peer does not speak the protocol; the text says in what."""


class Opened(msgspec.Struct, frozen=True, rename="camel"):
    """The server's first packet. Times are in milliseconds."""

    sid: str
    ping_interval: float
    ping_timeout: float
    max_payload: int = 1_000_000
    """Bytes of one message that the server takes."""


class Connected(msgspec.Struct, frozen=True):
    """The namespace is open."""


class ConnectionRefused(msgspec.Struct, frozen=True):
    """The server's middleware refused the namespace."""

    reason: str


class Disconnected(msgspec.Struct, frozen=True):
    """The server ends the session."""


class Ping(msgspec.Struct, frozen=True):
    """Wants a pong."""


class IgnoredPacket(msgspec.Struct, frozen=True):
    """A packet that means nothing here."""

    what: str


class SocketEvent(msgspec.Struct, frozen=True):
    """An event; with an `ack_id` the sender waits for an acknowledgement."""

    name: str
    arguments: list[Any]
    ack_id: int | None = None


class SocketAck(msgspec.Struct, frozen=True):
    """The acknowledgement of an event that was sent with this id."""

    ack_id: int
    arguments: list[Any]


class OversizedPacket(msgspec.Struct, frozen=True):
    """A packet was dropped for its size. Only one whose attachments are too large is known."""

    packet: SocketEvent | SocketAck | None = None


Packet: TypeAlias = (
    Opened
    | Connected
    | ConnectionRefused
    | Disconnected
    | Ping
    | IgnoredPacket
    | SocketEvent
    | SocketAck
    | OversizedPacket
)

_opened: Final = wire.decoder(Opened)
_any: Final = wire.decoder(object)
_list: Final = wire.decoder(list[Any])

PONG: Final = "3"
CONNECT: Final = "40"
DISCONNECT: Final = "41"
CLOSE: Final = "1"


@final
class Decoder:
    """The incoming side of one connection."""

    def __init__(self, max_bytes: int) -> None:
        """Take how many bytes the attachments of one packet may have together."""
        self._max_bytes = max_bytes
        self._waiting: SocketEvent | SocketAck | None = None
        self._attachments: list[bytes] = []
        self._came = self._wanted = 0
        self._oversized = False

    def feed(self, frame: Frame) -> Packet | None:
        """Return the packet that this frame completes; None when more frames belong to it. Raises BadPacket."""
        try:
            return self._binary(frame) if isinstance(frame, bytes) else self._text(frame)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadPacket(f"not the JSON of a packet: {error}") from None
        except RecursionError:
            raise BadPacket("a packet is nested too deeply") from None

    def drop(self) -> Packet | None:
        """Take note of a frame that was too large to be read; return as `feed` does."""
        if self._waiting is None:
            return OversizedPacket()
        self._oversized = True
        return self._came_one(self._waiting)

    def _text(self, frame: str) -> Packet | None:
        if frame == "2" or frame.startswith("2probe"):
            return Ping()
        kind = frame[:1]
        if kind == "4":
            return self._message(frame[1:])
        if kind == "0":
            return _opened.decode(frame[1:])
        if kind == "1":
            return Disconnected()
        if kind in ("3", "6"):
            return IgnoredPacket("pong" if kind == "3" else "noop")
        raise BadPacket(f"no Engine.IO packet begins with {kind!r}")

    def _message(self, text: str) -> Packet | None:
        if self._waiting is not None:
            raise BadPacket("a text packet came where an attachment was due")
        shape = _SHAPE.fullmatch(text)
        if shape is None:
            raise BadPacket(f"no Socket.IO packet begins with {text[:1]!r}")
        kind, count, namespace, ack_id, content = shape.groups()
        if namespace is not None and namespace.partition("?")[0] != "/":
            return self._of_another_namespace(kind, count)
        if kind == "0":
            return Connected()
        if kind == "1":
            return Disconnected()
        if kind == "4":
            return ConnectionRefused(_reason(content))
        packet = _made(kind, ack_id, content)
        if kind not in (_BINARY_EVENT, _BINARY_ACK):
            return packet
        self._wanted = int(count or 0)
        if not 0 < self._wanted <= MOST_ATTACHMENTS:
            raise BadPacket(f"a packet has {self._wanted} attachments; 1 to {MOST_ATTACHMENTS} are taken")
        self._waiting = packet
        return None

    def _of_another_namespace(self, kind: str, count: str | None) -> Packet:
        if kind in (_BINARY_EVENT, _BINARY_ACK) and count not in (None, "0"):
            raise BadPacket("attachments for a namespace that was never opened")
        return IgnoredPacket("namespace")

    def _binary(self, frame: bytes) -> Packet | None:
        packet = self._waiting
        if packet is None:
            raise BadPacket("an attachment that belongs to no packet")
        self._attachments.append(frame)
        if sum(map(len, self._attachments)) > self._max_bytes:
            self._oversized = True
        return self._came_one(packet)

    def _came_one(self, packet: SocketEvent | SocketAck) -> Packet | None:
        self._came += 1
        if self._oversized:
            self._attachments = []
        if self._came < self._wanted:
            return None
        oversized, attachments = self._oversized, self._attachments
        self._waiting, self._attachments, self._came, self._oversized = None, [], 0, False
        if oversized:
            return OversizedPacket(packet)
        filled = _filled(packet.arguments, dict(enumerate(attachments)))
        return msgspec.structs.replace(packet, arguments=filled)


def event_frames(name: str, arguments: list[Any], ack_id: int | None = None) -> list[Frame]:
    """Return the frames of an event. Raises ValueError for what JSON cannot hold."""
    return _frames("2", _BINARY_EVENT, "" if ack_id is None else str(ack_id), [name, *arguments])


def ack_frames(ack_id: int, arguments: list[Any]) -> list[Frame]:
    """Return the frames that acknowledge an event. Raises ValueError for what JSON cannot hold."""
    return _frames("3", _BINARY_ACK, str(ack_id), arguments)


def size_of(frames: list[Frame]) -> int:
    """Return the bytes of the largest frame, which a server bounds."""
    return max(len(frame) if isinstance(frame, bytes) else len(frame.encode()) for frame in frames)


def _frames(plain: str, binary: str, ack_id: str, content: list[Any]) -> list[Frame]:
    attachments: list[bytes] = []
    try:
        emptied = _emptied(content, attachments)
        text = msgspec.json.encode(emptied).decode()
    except (OverflowError, RecursionError, TypeError, msgspec.EncodeError) as error:
        raise ValueError(f"Result cannot be sent: {error}") from None
    if not attachments:
        return [f"4{plain}{ack_id}{text}"]
    return [f"4{binary}{len(attachments)}-{ack_id}{text}", *attachments]


def _made(kind: str, ack_id: str | None, content: str) -> SocketEvent | SocketAck:
    arguments = _list.decode(content)
    number = None if ack_id is None else int(ack_id)
    if kind in ("3", _BINARY_ACK):
        if number is None:
            raise BadPacket("an acknowledgement names no event")
        return SocketAck(number, arguments)
    if not arguments or not isinstance(arguments[0], str):
        raise BadPacket("an event has no name")
    return SocketEvent(arguments[0], arguments[1:], number)


def _reason(content: str) -> str:
    found = _any.decode(content) if content else None
    if isinstance(found, dict):
        found = found.get("message", found)
    return str(found)[:200]


def _filled(value: Any, attachments: dict[int, bytes]) -> Any:
    """Return the value with its placeholders replaced, each attachment in one place: a value grows no further.

    Raises BadPacket, RecursionError.
    """
    if isinstance(value, list):
        return [_filled(each, attachments) for each in value]
    if isinstance(value, dict):
        if value.get("_placeholder") is True:
            number = value.get("num")
            if not isinstance(number, int) or number not in attachments:
                raise BadPacket("a placeholder names no attachment, or one that has its place")
            return attachments.pop(number)
        return {name: _filled(each, attachments) for name, each in value.items()}
    return value


def _emptied(value: Any, attachments: list[bytes]) -> Any:
    """Return the value with placeholders for its bytes, which are appended to `attachments`."""
    if isinstance(value, bytes | bytearray | memoryview):
        attachments.append(bytes(value))
        return {"_placeholder": True, "num": len(attachments) - 1}
    if isinstance(value, list | tuple):
        return [_emptied(each, attachments) for each in value]
    if isinstance(value, dict):
        return {name: _emptied(each, attachments) for name, each in value.items()}
    return value
