"""Messages of a WebSocket, joined from their fragments and bounded: the same bound on every side, in bytes. No I/O."""

from typing import Final, TypeAlias, final

from wsproto.events import BytesMessage, TextMessage

from engram.http.errors import TooLarge

MESSAGE_BYTES: Final = 1_048_576
"""The most bytes of a message that clients and backends may send."""

Content: TypeAlias = str | bytes
"""A text message or a binary one."""


@final
class Messages:
    """Joins what one side sends."""

    __slots__ = ("_drops_large", "_max_bytes", "_parts", "_size")

    def __init__(self, max_bytes: int = MESSAGE_BYTES, *, drops_large: bool = False) -> None:
        """Take the bound; with `drops_large` a message beyond it is read to its end before it is refused."""
        self._max_bytes = max_bytes
        self._drops_large = drops_large
        self._parts: list[Content] = []
        self._size = 0

    def joined(self, event: TextMessage | BytesMessage) -> Content | None:
        """Return a message with its last fragment, None before. Raises TooLarge."""
        data = event.data
        self._size += len(data.encode()) if isinstance(data, str) and not data.isascii() else len(data)
        if self._size > self._max_bytes:
            self._parts = []
            if self._drops_large and not event.message_finished:
                return None
            self._size = 0
            raise TooLarge(f"a message has more than {self._max_bytes} bytes", 101)
        if data:  # empty fragments cost their sender nothing and never end
            self._parts.append(data if isinstance(data, str) else bytes(data))
        if not event.message_finished:
            return None
        parts, self._parts, self._size = self._parts, [], 0
        if isinstance(event, TextMessage):
            return "".join(part for part in parts if isinstance(part, str))
        return b"".join(part for part in parts if isinstance(part, bytes))
