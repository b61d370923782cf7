"""The parsing that requests and answers share: buffering, body framing (RFC 9112, 6 and 7), trailers. Does no I/O.

States, and what `next` returns in each:

    head    -> what a head is to the subclass             then  counted | chunk (or a state of the subclass)
    counted -> bytes while the declared length lasts      then  END, head
    chunk   -> (reads a chunk's size line)                then  data, or trailers after the chunk of size 0
    data    -> bytes of the chunk                         then  chunk
    trailers-> (checked and kept)                         then  END, head

A parser that has raised Refused is not used again.
"""

import re
from collections.abc import Callable
from typing import Final, Generic, TypeAlias, TypeVar, final

CHUNKED: Final = -1
"""The length of a chunked body."""

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
FIELDS: Final = rb"((?:" + TOKEN + rb"++:[\t -~\x80-\xff]*+\r\n)*+)\r\n"
"""Header or trailer lines to the empty line; possessive: its time is linear, whatever is sent."""
LENGTH: Final = re.compile(rb"[0-9]{1,15}\Z")
BARE: Final = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")
_TRAILERS = re.compile(FIELDS)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8}+)((?:[ \t]*+;[\t -~\x80-\xff]*+)?)\r\n")
_CHUNK_BEGUN = re.compile(rb"(?:[0-9A-Fa-f]{1,8}+(?:[ \t]*+(?:;[\t -~\x80-\xff]*+)?\r?)?)?\Z")
_CHUNK_LINE_BYTES: Final = 1_024
_COPIED_BYTES: Final = 512
"""Remaining input up to this size is copied; a larger buffer is trimmed at its start in constant time."""

Headers: TypeAlias = list[tuple[bytes, bytes]]
H = TypeVar("H")


@final
class Refused(Exception):
    """The input is not a valid message.

    The server answers such a request itself, in its turn, and then closes the connection.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.bodyless = False
        """The request was a HEAD: its answer has no body."""
        self.origin = b""
        """The request's Origin header, where its head was well-formed."""
        self.retry_s = 0
        """Seconds after which the client may try again; 0 where that does not help."""


@final
class Mark:
    """An event without content."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


NEED: Final = Mark("NEED")
"""More bytes are needed."""
END: Final = Mark("END")
"""The body has ended."""


class Framed(Generic[H]):
    """Reads the messages of one direction of one connection, one after the other."""

    __slots__ = (
        "_buffer",
        "_extension_bytes",
        "_left",
        "_max_extension_bytes",
        "_max_fields",
        "_max_head_bytes",
        "_searched",
        "_state",
        "_trailer_lines",
    )

    def __init__(self, max_head_bytes: int, max_fields: int, max_extension_bytes: int) -> None:
        self._max_head_bytes = max_head_bytes
        self._max_fields = max_fields
        self._max_extension_bytes = max_extension_bytes
        self._buffer: bytes | bytearray = b""
        self._state: Callable[[], H | bytes | Mark] = self._head
        self._left = 0
        self._searched = 0
        self._extension_bytes = 0
        self._trailer_lines = b""

    def _head(self) -> H | bytes | Mark:
        """Parse a message's head: the state in which a message begins. Implemented by the subclass."""
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        if not self._buffer:
            self._buffer = data
            return
        if type(self._buffer) is bytes:
            self._buffer = bytearray(self._buffer)
        self._buffer += data

    @property
    def trailers(self) -> Headers:
        """The trailers of the last chunked body."""
        return fields(self._trailer_lines)

    @property
    def held(self) -> int:
        """The number of bytes not yet returned in an event."""
        return len(self._buffer)

    def next(self) -> H | bytes | Mark:
        """Return the next event. Raises Refused."""
        return self._state()

    def _drop(self, count: int) -> None:
        rest = len(self._buffer) - count
        if rest <= _COPIED_BYTES:
            self._buffer = bytes(self._buffer[count:]) if rest > 0 else b""
            return
        buffer = self._buffer if isinstance(self._buffer, bytearray) else bytearray(self._buffer)
        del buffer[:count]
        self._buffer = buffer

    def _take(self, count: int) -> bytes:
        if count >= len(self._buffer):
            part, self._buffer = self._buffer, b""
            return part if type(part) is bytes else bytes(part)
        part = bytes(self._buffer[:count])
        self._drop(count)
        return part

    def _counted(self) -> H | bytes | Mark:
        if not self._left:
            self._state = self._head
            return END
        if not self._buffer:
            return NEED
        part = self._take(self._left)
        self._left -= len(part)
        return part

    def _chunk(self) -> H | bytes | Mark:
        buffer = self._buffer
        match = _CHUNK.match(buffer)
        if match is None:
            if len(buffer) > _CHUNK_LINE_BYTES or _CHUNK_BEGUN.match(buffer) is None:
                raise Refused(400, "bad_chunk", "this is not a valid chunk")
            return NEED
        self._extension_bytes += len(match[2])
        if self._extension_bytes > self._max_extension_bytes:
            raise Refused(400, "bad_chunk", f"chunk extensions may have {self._max_extension_bytes} bytes")
        self._left = int(match[1], 16)
        self._drop(match.end())
        self._state = self._data if self._left else self._trailers
        return self._state()

    def _data(self) -> H | bytes | Mark:
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

    def _trailers(self) -> H | bytes | Mark:
        buffer = self._buffer
        searched, self._searched = self._searched, len(buffer)
        end = 2 if buffer[:2] == b"\r\n" else buffer.find(b"\r\n\r\n", max(0, searched - 3)) + 4
        if end == 3:  # their end has not arrived yet
            if len(buffer) > self._max_head_bytes or BARE.search(buffer, max(0, searched - 1)):
                raise Refused(400, "bad_trailers", "these are no valid trailers")
            return NEED
        self._searched = 0
        if end > self._max_head_bytes or _TRAILERS.fullmatch(bytes(buffer[:end])) is None:
            raise Refused(400, "bad_trailers", "these are no valid trailers")
        lines = self._take(end)[:-2]
        if lines.count(b"\r\n") > self._max_fields:
            raise Refused(400, "bad_trailers", f"more than {self._max_fields} trailers")
        self._trailer_lines = lines
        self._state = self._head
        return END


def fields(lines: bytes) -> Headers:
    """Return checked header or trailer lines as names in lower case and values, in the order received."""
    if not lines:
        return []
    split = lines[:-2].split(b"\r\n")
    return [(name.lower(), value.strip()) for line in split for name, value in [line.split(b":", 1)]]
