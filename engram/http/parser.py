"""Parses HTTP/1.1 requests, without I/O: `feed` it received bytes, then call `next` until it returns NEED.

What a head may be is in head.py, how bodies and trailers (checked, and dropped here) are read in framing.py; nothing is
repaired, a request is accepted as it stands or refused. CR LF before a request line is ignored (RFC 9112, 2.2).
"""

import re
from typing import TypeAlias, final

from engram.http.framing import CHUNKED, END, NEED, Framed, Mark, Refused
from engram.http.head import Bounds, Head, check_begun, read

__all__ = ["END", "NEED", "Event", "Parser"]

_CR = 13
_BLANK_LINES = re.compile(rb"(?:\r\n)++")

Event: TypeAlias = Head | bytes | Mark


@final
class Parser(Framed[Head]):
    """Reads the requests of one connection, one after the other."""

    __slots__ = ("_bounds",)

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(bounds.max_head_bytes, bounds.max_headers, bounds.max_extension_bytes)
        self._bounds = bounds

    def take_all(self) -> bytes:
        """Return the buffered bytes, for another protocol on this connection."""
        return self._take(len(self._buffer))

    def skip_end(self) -> None:
        """Consume the END of a request without a body, whose head has just been returned."""
        self._state = self._head

    def take_end(self) -> bool:
        """Return whether the body has ended without needing more bytes; consume its END if so. Raises Refused."""
        if self._state == self._counted:
            return not self._left and self._counted() is END
        if self._state == self._data and not self._left and self._buffer[:2] == b"\r\n":
            self._drop(2)
            self._state = self._chunk
        if self._state == self._chunk and self._buffer[:5] == b"0\r\n\r\n":
            return self._chunk() is END
        return False

    def holds_request(self) -> bool:
        """Return whether a whole request is buffered behind the current one. Parses a copy: for the server's end."""
        ahead = Parser(self._bounds)
        ahead._buffer = bytes(self._buffer)
        ahead._left, ahead._extension_bytes = self._left, self._extension_bytes
        ahead._state = getattr(ahead, self._state.__name__)
        current = self._state != self._head  # its body has not been taken to its end
        try:
            while (event := ahead.next()) is not NEED:
                if event is END:
                    if not current:
                        return True
                    current = False
        except Refused:
            pass
        return False

    def _head(self) -> Event:
        buffer = self._buffer
        if not buffer:
            return NEED
        if buffer[0] == _CR and (blank := _BLANK_LINES.match(buffer)):  # bounded by the deadline of a head
            self._drop(blank.end())
            return self._head()
        end = buffer.find(b"\r\n\r\n", self._searched - 3 if self._searched > 3 else 0) + 4
        if end < 4 or end > self._max_head_bytes:
            searched, self._searched = self._searched, len(buffer)
            check_begun(buffer, searched, self._bounds)
            return NEED
        self._searched = 0
        head = read(self._take(end), self._bounds)
        self._left, self._extension_bytes = head.length, 0
        self._state = self._chunk if head.length == CHUNKED else self._counted
        return head
