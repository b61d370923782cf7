"""Parses HTTP/1.1 answers to requests that this process makes: the counterpart of `parser`. Does no I/O.

Rules (RFC 9112; an answer is accepted as it stands or refused, never repaired):
- a head is matched as a whole by one expression: HTTP/1.0 or 1.1, three digits, an optional reason, lines ended by CR
  LF, names of token characters, values of visible characters, SP, HTAB and obs-text;
- framing is unambiguous: one Content-Length (the same one repeated counts as one), or `Transfer-Encoding: chunked`
  alone and only in HTTP/1.1; never both. Without either the body ends with the connection;
- HEAD, 204 and 304 have no body, whatever they declare (RFC 9112, 6.3);
- a few 1xx answers are skipped; 101 is refused, because no upgrade was requested;
- heads, their fields, chunk lines and trailers are bounded.

States in addition to those of `framing`:

    head    -> Head when it is whole                      then  counted | chunk | rest
    rest    -> bytes until `end` says that none follow    then  END

A parser reads one answer. Bytes `held` after END belong to no request of ours.
"""

import re
from typing import Final, TypeAlias, final

from engram.http.framing import BARE, CHUNKED, END, FIELDS, LENGTH, NEED, Framed, Headers, Mark, Refused, fields

__all__ = ["END", "NEED", "AnswerHead", "AnswerParser", "Event", "Refused"]

UNTIL_CLOSE: Final = -2
"""The length of a body that ends with its connection."""

_MAX_HEAD_BYTES: Final = 65_536
_MAX_FIELDS: Final = 256
_MAX_INTERIM: Final = 16
_MAX_EXTENSION_BYTES: Final = 4_096
_STATUS_LINE = rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [\t -~\x80-\xff]*+)?\r\n"
_HEAD = re.compile(_STATUS_LINE + FIELDS)
_FIRST_LINE = re.compile(_STATUS_LINE)
_VERSION_BEGUN = re.compile(rb"H(?:T(?:T(?:P(?:/(?:1(?:\.(?:[01](?: (?:[1-9][0-9]{0,2}(?: .*)?)?)?)?)?)?)?)?)?)?\r?\Z")


@final
class AnswerHead:
    """An answer's head, and its consequences for framing and for the connection."""

    __slots__ = ("headers", "keep", "length", "minor", "status")

    def __init__(self, status: int, minor: int, headers: Headers) -> None:
        self.status = status
        self.minor = minor
        """0 or 1, of HTTP/1.x."""
        self.headers = headers
        """Names in lower case, in the order in which they came."""
        self.keep = minor == 1
        """Whether the server takes further requests on this connection."""
        self.length = UNTIL_CLOSE
        """Of the body, in bytes, or CHUNKED, or UNTIL_CLOSE."""


Event: TypeAlias = AnswerHead | bytes | Mark


@final
class AnswerParser(Framed[AnswerHead]):
    """Reads the answer to one request."""

    __slots__ = ("_bodyless", "_interim", "ended")

    def __init__(self, *, bodyless: bool = False) -> None:
        """Take whether the answer has no body because the request was a HEAD."""
        super().__init__(_MAX_HEAD_BYTES, _MAX_FIELDS, _MAX_EXTENSION_BYTES)
        self._bodyless = bodyless
        self._interim = 0
        self.ended = False
        """Whether the stream has ended."""

    def end(self, *, cut: bool = False) -> None:
        """Record the end of the stream; `cut` where its sender may not have meant it. Raises Refused when the answer is
        incomplete."""
        if cut or self._state != self._rest:
            raise Refused(502, "cut_short", "the connection was closed before the end of the answer")
        self.ended = True

    def _head(self) -> Event:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3)) + 4
        if end < 4 or end > _MAX_HEAD_BYTES:
            return self._half_head()
        self._searched = 0
        match = _HEAD.fullmatch(self._take(end))
        if match is None:
            raise Refused(502, "bad_answer", "this is not a valid HTTP answer")
        minor, status, lines = match.groups()
        if lines.count(b"\r\n") > _MAX_FIELDS:  # before they are taken apart
            raise Refused(502, "bad_answer", f"more than {_MAX_FIELDS} headers")
        head = AnswerHead(int(status), minor[0] - 48, fields(lines))
        _judge(head)
        if head.status < 200:
            self._interim += 1
            if head.status == 101 or self._interim > _MAX_INTERIM:
                raise Refused(502, "bad_answer", f"no answer of status {head.status} was asked for")
            return self._head()
        if self._bodyless or head.status in (204, 304):
            head.keep = head.keep and (self._bodyless or head.status == 304 or head.length in (0, UNTIL_CLOSE))
            head.length = 0
        elif head.length == UNTIL_CLOSE:
            head.keep = False
        self._left = head.length
        if head.length >= 0:
            self._state = self._counted
        else:
            self._state = self._chunk if head.length == CHUNKED else self._rest
        return head

    def _half_head(self) -> Event:
        """Refuse an incomplete head that is already invalid, so that garbage does not wait for a deadline."""
        buffer, searched = self._buffer, self._searched
        self._searched = len(buffer)
        if len(buffer) > _MAX_HEAD_BYTES:
            raise Refused(502, "bad_answer", f"the head of an answer may have {_MAX_HEAD_BYTES} bytes")
        if buffer:
            line = _FIRST_LINE if b"\r\n" in buffer else _VERSION_BEGUN
            if line.match(buffer) is None or BARE.search(buffer, max(0, searched - 1)):
                raise Refused(502, "bad_answer", "this is not a valid HTTP answer")
        return NEED

    def _rest(self) -> Event:
        if self._buffer:
            return self._take(len(self._buffer))
        return END if self.ended else NEED


def _judge(head: AnswerHead) -> None:
    """Set framing and keep-alive from a head. Raises Refused where they are ambiguous."""
    chunked, options = False, b""
    for name, value in head.headers:
        if name == b"content-length":
            if LENGTH.match(value) is None or head.length not in (UNTIL_CLOSE, int(value)):
                raise Refused(502, "bad_length", "Content-Length must be one decimal number")
            head.length = int(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked" or chunked or head.minor == 0:
                raise Refused(
                    502, "bad_length", "chunked, once and in HTTP/1.1, is the only transfer coding understood"
                )
            chunked = True
        elif name == b"connection":
            options += b"," + value.lower()
    if chunked:
        if head.length != UNTIL_CLOSE:
            raise Refused(502, "ambiguous_length", "Content-Length and Transfer-Encoding were both sent")
        head.length = CHUNKED
    if options:
        words = {option.strip(b" \t") for option in options.split(b",")}
        head.keep = b"close" not in words and (head.keep or b"keep-alive" in words)
