"""HTTP/1.1 requests out of bytes, without I/O: `feed` what arrived, ask `next` until it says NEED.

What a head may be is in head.py; nothing is repaired, a request is accepted as it stands or refused. Chunk lines, their
extensions and trailers are bounded. CR LF before a request line is ignored (RFC 9112, 2.2).

States, and what `next` returns in each:

    head    -> Head when it is whole                      then  counted | chunk
    counted -> bytes while the declared length lasts      then  END, head
    chunk   -> (reads a chunk's size line)                then  data, or trailers after the chunk of size 0
    data    -> bytes of the chunk                         then  chunk
    trailers-> (checked and dropped)                      then  END, head

A parser that has raised Refused is not used again.
"""

import re
from collections.abc import Callable
from typing import Final, TypeAlias, final

from engram.http.head import BARE, CHUNKED, FIELDS, Bounds, Head, Refused, check_begun, read

_TRAILERS = re.compile(FIELDS)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8}+)((?:[ \t]*+;[\t -~\x80-\xff]*+)?)\r\n")
_CHUNK_BEGUN = re.compile(rb"(?:[0-9A-Fa-f]{1,8}+(?:[ \t]*+(?:;[\t -~\x80-\xff]*+)?\r?)?)?\Z")
_CHUNK_LINE_BYTES: Final = 1_024
_COPIED_BYTES: Final = 512
"""A rest of what arrived up to this size is copied; of a larger one the beginning is cut off in constant time."""
_BLANK_LINES = re.compile(rb"(?:\r\n)*+")


@final
class _Mark:
    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


NEED: Final = _Mark("NEED")
"""Nothing more without more bytes."""
END: Final = _Mark("END")
"""The body has ended."""

Event: TypeAlias = Head | bytes | _Mark


@final
class Parser:
    """Reads the requests of one connection, one after the other."""

    __slots__ = ("_bounds", "_buffer", "_extension_bytes", "_left", "_searched", "_state")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._buffer: bytes | bytearray = b""
        self._state: Callable[[], Event] = self._head
        self._left = 0
        self._searched = 0
        self._extension_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        if not self._buffer:
            self._buffer = data
            return
        if type(self._buffer) is bytes:
            self._buffer = bytearray(self._buffer)
        self._buffer += data

    @property
    def held(self) -> int:
        """Bytes that no event has given out yet."""
        return len(self._buffer)

    def next(self) -> Event:
        """The next event. Raises Refused."""
        return self._state()

    def take_all(self) -> bytes:
        """What is held, for another protocol on this connection."""
        return self._take(len(self._buffer))

    def take_end(self) -> bool:
        """Whether the body is known to have ended without more bytes; takes its END if so. Raises Refused."""
        if self._state == self._counted:
            return not self._left and self._counted() is END
        if self._state == self._data and not self._left and self._buffer[:2] == b"\r\n":
            self._drop(2)
            self._state = self._chunk
        if self._state == self._chunk and self._buffer[:5] == b"0\r\n\r\n":
            return self._chunk() is END
        return False

    def _drop(self, count: int) -> None:
        rest = len(self._buffer) - count
        if rest <= _COPIED_BYTES:
            self._buffer = bytes(self._buffer[count:]) if rest > 0 else b""
            return
        buffer = self._buffer
        if isinstance(buffer, bytes):
            buffer = self._buffer = bytearray(buffer)
        del buffer[:count]

    def _take(self, count: int) -> bytes:
        if count >= len(self._buffer):
            part, self._buffer = self._buffer, b""
            return part if type(part) is bytes else bytes(part)
        part = bytes(self._buffer[:count])
        self._drop(count)
        return part

    def _head(self) -> Event:
        if self._buffer[:2] == b"\r\n":  # bounded by the time that a head may take
            blank = _BLANK_LINES.match(self._buffer)
            assert blank is not None
            self._drop(blank.end())
        buffer = self._buffer
        if not buffer:
            return NEED
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3)) + 4
        if end < 4 or end > self._bounds.max_head_bytes:
            return self._half_head()
        self._searched = 0
        head = read(self._take(end), self._bounds)
        self._left, self._extension_bytes = head.length, 0
        self._state = self._chunk if head.length == CHUNKED else self._counted
        return head

    def _half_head(self) -> Event:
        """Refuse what can be refused already: garbage must not wait for the deadline of heads."""
        searched, self._searched = self._searched, len(self._buffer)
        check_begun(self._buffer, searched, self._bounds)
        return NEED

    def _counted(self) -> Event:
        if not self._left:
            self._state = self._head
            return END
        if not self._buffer:
            return NEED
        part = self._take(self._left)
        self._left -= len(part)
        return part

    def _chunk(self) -> Event:
        buffer = self._buffer
        match = _CHUNK.match(buffer)
        if match is None:
            if len(buffer) > _CHUNK_LINE_BYTES or _CHUNK_BEGUN.match(buffer) is None:
                raise Refused(400, "bad_chunk", "this is not a valid chunk")
            return NEED
        self._extension_bytes += len(match[2])
        if self._extension_bytes > self._bounds.max_extension_bytes:
            raise Refused(400, "bad_chunk", f"chunk extensions may have {self._bounds.max_extension_bytes} bytes")
        self._left = int(match[1], 16)
        self._drop(match.end())
        self._state = self._data if self._left else self._trailers
        return self._state()

    def _data(self) -> Event:
        if not self._buffer:
            return NEED
        if self._left:
            part = self._take(self._left)
            self._left -= len(part)
            return part
        if self._buffer[:2] == b"\r\n":
            self._drop(2)
            self._state = self._chunk
            return self._chunk()
        if self._buffer == b"\r":
            return NEED
        raise Refused(400, "bad_chunk", "a chunk is longer than it says")

    def _trailers(self) -> Event:
        buffer = self._buffer
        searched, self._searched = self._searched, len(buffer)
        end = 2 if buffer[:2] == b"\r\n" else buffer.find(b"\r\n\r\n", max(0, searched - 3)) + 4
        if end == 3:  # their end is not here yet
            if len(buffer) > self._bounds.max_head_bytes or BARE.search(buffer, max(0, searched - 1)):
                raise Refused(400, "bad_trailers", "these are no valid trailers")
            return NEED
        self._searched = 0
        if end > self._bounds.max_head_bytes or _TRAILERS.fullmatch(bytes(buffer[:end])) is None:
            raise Refused(400, "bad_trailers", "these are no valid trailers")
        self._drop(end)
        self._state = self._head
        return END
