"""Serializes an application's answer for the wire (RFC 9112): the head, then each part of the body. Does no I/O.

Framing is the server's task: by the Content-Length that the application declares, in chunks where it declares none, by
the end of the connection in HTTP/1.0. HEAD, 204 and 304 have no body. An answer that cannot be framed is an error of
the application (ValueError, RuntimeError), raised before any byte is sent where possible.
"""

import re
from http import HTTPStatus
from typing import Final, TypeVar, final

from engram.http.asgi import BODILESS, HeaderLines
from engram.http.head import Head

_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode("ascii")) for status in HTTPStatus}
_BAD_NAME = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]|\A\Z")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING: Final = frozenset({b"connection", b"content-length", b"date", b"keep-alive", b"transfer-encoding"})
"""Headers of an answer that the server writes itself; the application's values only request them."""


_JOINED_BYTES: Final = 32_768
"""A body up to this size is joined to its head; a larger one is passed to the kernel without a copy."""
_REMEMBERED: Final = 512
_REMEMBERED_BYTES: Final = 64
_lines: dict[tuple[bytes, bytes], bytes] = {}
"""Headers that were found valid lately, as they are sent: most answers have the same ones."""
_begun: dict[bytes, bytes] = {}
"""Names that were found valid lately, with their colon."""


@final
class Answer:
    """Frames the answer to one request."""

    __slots__ = ("_bodiless", "_chunked", "_left", "_minor", "_pending", "_trailers", "keep", "status")

    def __init__(self, head: Head) -> None:
        self.keep = head.keep
        """Whether the connection is kept open after it."""
        self.status = 0
        """0 until the application has sent its head."""
        self._minor = head.minor
        self._bodiless = head.method == b"HEAD"
        self._left: int | None = None  # of the declared Content-Length
        self._chunked = False
        self._pending = b""  # the head, until the body's first part
        self._trailers = False  # whether the application sends trailers after the body

    @property
    def out(self) -> bool:
        """Whether any part of it has been passed to the connection."""
        return self.status != 0 and not self._pending

    def start(
        self, status: int, headers: HeaderLines, length: int | None, date: bytes, *, trailers: bool = False
    ) -> None:
        """Take the head; `date` is the Date line. Raises ValueError for what cannot be sent.

        `length` is the body's where it is known; otherwise a Content-Length among the headers declares it. With
        `trailers` the answer ends with `trailers()` instead of with its body's last part.
        """
        if self.status:
            raise RuntimeError("the response has begun already")
        if not 200 <= status <= 999:
            raise ValueError(f"{status} is no status of a final answer (200 to 999)")
        self._left = length
        out = _LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        for name, value in headers:
            if (line := _lines.get((name, value))) is None:
                line = self._line(name, value, status)
            out += line
        out += date
        if status in BODILESS:
            self._bodiless, self._left = True, None
        elif length is not None:
            out += b"content-length: %d\r\n" % length
        elif self._left is not None:
            pass  # declared among the headers
        elif self._minor:
            self._chunked = True
            out += b"transfer-encoding: chunked\r\n"
        else:
            self.keep = False
        if not self.keep:
            out += b"connection: close\r\n"
        elif not self._minor:
            out += b"connection: keep-alive\r\n"
        self._pending = out + b"\r\n"
        self._trailers = trailers
        self.status = status

    def _line(self, name: bytes, value: bytes, status: int) -> bytes:
        """Return a header's line; of one that is the server's to write, take what it requests and return b""."""
        if name in _FRAMING:
            return self._framing_line(name, value, status)
        if (begun := _begun.get(name)) is None:
            if (lower := name.lower()) in _FRAMING:
                return self._framing_line(lower, value, status)
            if _BAD_NAME.search(lower):
                raise ValueError(f"a header that cannot be sent: {name!r}")
            begun = lower + b": "
            _remember(_begun, name, begun)
        if _BAD_VALUE.search(value):
            raise ValueError(f"a header that cannot be sent: {name!r}")
        line = begun + value + b"\r\n"
        if len(value) <= _REMEMBERED_BYTES and name != b"x-request-id":  # another one each time
            _remember(_lines, (name, value), line)
        return line

    def _framing_line(self, name: bytes, value: bytes, status: int) -> bytes:
        if name == b"content-length":
            if self._left is not None or not value.isdigit():
                raise ValueError(f"Content-Length must be one decimal number, not {value!r}")
            self._left = int(value)
            return b"" if status in BODILESS else b"content-length: %d\r\n" % self._left
        if _BAD_VALUE.search(value):
            raise ValueError(f"a header that cannot be sent: {name!r}")
        if name == b"connection" and value.lower() == b"close":
            self.keep = False
        return b""

    def framed(self, body: bytes, *, more: bool) -> tuple[bytes, ...]:
        """Return the bytes to send for a part of the body.

        Raises RuntimeError when the body's length differs from the declared one.
        """
        chunked = self._chunked and not self._bodiless
        parts = () if self._bodiless else self._part(body, more or (self._trailers and chunked))
        head, self._pending = self._pending, b""
        if not head:
            return parts
        if len(parts) == 1 and len(body) <= _JOINED_BYTES:
            return (head + parts[0],)
        return (head, *parts)

    def _part(self, body: bytes, more: bool) -> tuple[bytes, ...]:
        if self._chunked:
            if not body:
                return () if more else (b"0\r\n\r\n",)
            return (b"%x\r\n" % len(body), body, b"\r\n" if more else b"\r\n0\r\n\r\n")
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the answer's body is not as long as its Content-Length")
        return (body,) if body else ()

    @property
    def awaits_trailers(self) -> bool:
        """Whether `trailers` ends the answer, and not the last part of its body."""
        return self._trailers

    def trailers(self, headers: HeaderLines) -> tuple[bytes, ...]:
        """Return the bytes that end the answer; trailers are sent only in chunks (RFC 9110, 6.5.1).

        Raises ValueError for what cannot be sent.
        """
        self._trailers = False
        if not self._chunked or self._bodiless:
            return ()
        lines = [b"0\r\n"]
        for name, value in headers:
            name = name.lower()
            if _BAD_NAME.search(name) or _BAD_VALUE.search(value) or name in _FRAMING:
                raise ValueError(f"a trailer that cannot be sent: {name!r}")
            lines.append(b"%b: %b\r\n" % (name, value))
        return (b"".join(lines) + b"\r\n",)


K = TypeVar("K")


def _remember(table: dict[K, bytes], key: K, line: bytes) -> None:
    """Keep a valid header, or its name; the table starts over when it is full."""
    if len(table) >= _REMEMBERED:
        table.clear()
    table[key] = line
