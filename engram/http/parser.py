"""HTTP/1.1 requests out of bytes, without I/O: `feed` what arrived, ask `next` until it says NEED.

Rules (RFC 9112; nothing is repaired, a request is accepted as it stands or refused):
- a head is judged whole, by one expression that says what is allowed: method in capitals, a path (or `*`) as target,
  HTTP/1.0 or 1.1, lines ended by CR LF, names of token characters, values of visible characters, SP, HTAB and
  obs-text. No folded lines, no bare LF or CR, no space before a colon;
- framing is unambiguous: at most one Content-Length (digits only), or `Transfer-Encoding: chunked` alone and only in
  HTTP/1.1; never both. Header fields that decide who is meant occur once;
- everything is bounded: the head (request line and fields), the number of fields, chunk lines, trailers;
- CR LF before a request line is ignored (RFC 9112, 2.2). Bytes that cannot begin a request are refused as they come.

States, and what `next` returns in each:

    head    -> Head when it is whole                      then  counted | chunk
    counted -> bytes while the declared length lasts      then  END, head
    chunk   -> (reads a chunk's size line)                then  data, or trailers after the chunk of size 0
    data    -> bytes of the chunk                         then  chunk
    trailers-> (checked and dropped)                      then  END, head

A parser that has raised Refused is not used again.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias, final

import msgspec

CHUNKED: Final = -1
"""The length of a body that declares none."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_REQUEST_LINE = rb"([A-Z]{1,24}+) ((?:/[!-\"$-~]*+|\*)) HTTP/1\.([01])\r\n"
_FIELDS = rb"((?:" + _TOKEN + rb"++:[\t -~\x80-\xff]*+\r\n)*+)\r\n"
_HEAD = re.compile(_REQUEST_LINE + _FIELDS)  # possessive: its time is linear, whatever is sent
_FIRST_LINE = re.compile(_REQUEST_LINE)
_FIRST_LINE_BEGUN = re.compile(rb"(?:[A-Z]{1,24}+(?: (?:[!-~]++(?: [!-~]*+\r?)?)?)?|\r)\Z")
_TRAILERS = re.compile(_FIELDS)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8}+)((?:[ \t]*+;[\t -~\x80-\xff]*+)?)\r\n")
_CHUNK_BEGUN = re.compile(rb"(?:[0-9A-Fa-f]{1,8}+(?:[ \t]*+(?:;[\t -~\x80-\xff]*+)?\r?)?)?\Z")
_COPIED_BYTES: Final = 1_024
"""Of what is left behind a part that is taken: more is kept where taking moves nothing, or 10,000 chunks of one byte
would be moved 10,000 times."""
_CHUNK_LINE_BYTES: Final = 1_024
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|(?:[0-9A-Za-z_-]{1,63}\.){0,32}[0-9A-Za-z_-]{1,63}\.?)(?::[0-9]{1,5})?\Z"
)
"""A name, an IPv4 address or an IPv6 address in brackets, and perhaps a port; frameworks fail on much of the rest."""
_BARE = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")
_LENGTH = re.compile(rb"[0-9]{1,15}\Z")
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]\Z")

SINGLE: Final = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
        b"payment-signature",
        b"transfer-encoding",
        b"x-payment",
    }
)
"""Request headers that may occur once only, on every surface."""
_CONNECTION_FIELDS = frozenset({b"connection", b"expect", b"upgrade"})
_NOT_OFFERED = frozenset({b"CONNECT", b"TRACE"})


@final
class Refused(Exception):
    """A request is answered by the connection itself, in its turn, and the connection is closed after it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.bodyless = False
        """The request was a HEAD: its answer has no body."""
        self.origin = b""
        """The request's Origin header, where its head was well-formed."""


class Bounds(msgspec.Struct, frozen=True):
    """What a request's head and framing may have."""

    max_head_bytes: int = 32_768
    """Request line and fields, to the empty line."""
    max_headers: int = 100
    max_extension_bytes: int = 1_024
    """Chunk extensions of one body, in all."""
    looked_at: frozenset[bytes] = SINGLE | _CONNECTION_FIELDS
    single: frozenset[bytes] = SINGLE
    websocket: bool = False
    """Whether `Upgrade: websocket` is passed on; every other upgrade is refused."""


def bounds(
    *, max_head_bytes: int, max_headers: int, single_headers: Iterable[bytes] = (), websocket: bool = False
) -> Bounds:
    """Bounds with `single_headers` (lower case) beside the headers that may occur once only everywhere."""
    single = SINGLE | frozenset(single_headers)
    return Bounds(
        max_head_bytes=max_head_bytes,
        max_headers=max_headers,
        looked_at=single | _CONNECTION_FIELDS,
        single=single,
        websocket=websocket,
    )


Headers: TypeAlias = list[tuple[bytes, bytes]]


@final
class Head:
    """A request's head: what it says, and what that means for framing and for the connection."""

    __slots__ = ("expects", "headers", "keep", "length", "method", "minor", "target", "upgrade")

    def __init__(self, method: bytes, target: bytes, minor: int, headers: Headers) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        """0 or 1, of HTTP/1.x."""
        self.headers = headers
        """Names in lower case, in the order in which they came."""
        self.keep = minor == 1
        """Whether the client takes further answers on this connection."""
        self.length = 0
        """Of the body, in bytes, or CHUNKED."""
        self.expects = False
        """Whether the client waits for 100 (Continue) before it sends the body."""
        self.upgrade = False
        """Whether this is a WebSocket handshake (only where the bounds allow one)."""


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
        left = len(self._buffer) - count
        if left > _COPIED_BYTES and type(self._buffer) is bytes:
            self._buffer = bytearray(self._buffer)
        if left > 0 and type(self._buffer) is bytearray:
            del self._buffer[:count]
        else:
            self._buffer = self._buffer[count:]

    def _take(self, count: int) -> bytes:
        if count >= len(self._buffer):
            part, self._buffer = self._buffer, b""
            return part if type(part) is bytes else bytes(part)
        part = bytes(self._buffer[:count])
        self._drop(count)
        return part

    def _head(self) -> Event:
        while self._buffer[:2] == b"\r\n":  # bounded by the time that a head may take
            self._drop(2)
        buffer = self._buffer
        if not buffer:
            return NEED
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3)) + 4
        if end < 4 or end > self._bounds.max_head_bytes:
            return self._half_head()
        self._searched = 0
        raw = self._take(end)
        match = _HEAD.fullmatch(raw)
        if match is None:
            raise _why(raw)
        method, target, minor, fields = match.groups()
        headers: Headers = []
        if fields:
            for line in fields[:-2].split(b"\r\n"):
                name, _, value = line.partition(b":")
                headers.append((name.lower(), value.strip(b" \t")))
        head = Head(method, target, minor[0] - 48, headers)
        try:
            _judge(head, self._bounds)
        except Refused as refused:
            refused.bodyless = method == b"HEAD"
            refused.origin = next((value for name, value in headers if name == b"origin"), b"")
            raise
        self._left, self._extension_bytes = head.length, 0
        self._state = self._chunk if head.length == CHUNKED else self._counted
        return head

    def _half_head(self) -> Event:
        """Refuse what can be refused already: garbage must not wait for the deadline of heads."""
        buffer, searched = self._buffer, self._searched
        self._searched = len(buffer)
        if len(buffer) > self._bounds.max_head_bytes:
            refused = Refused(431, "headers_too_large", f"the head may have {self._bounds.max_head_bytes} bytes")
            refused.origin = _origin_within(bytes(buffer[: self._bounds.max_head_bytes]))
            raise refused
        end = buffer.find(b"\r\n")
        line = _FIRST_LINE_BEGUN if end < 0 else _FIRST_LINE
        if line.match(buffer) is None or _BARE.search(buffer, max(0, searched - 1)):
            raise _why(bytes(buffer[:end] if end >= 0 else buffer))
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
        end = 2 if buffer[:2] == b"\r\n" else buffer.find(b"\r\n\r\n") + 4
        if end == 3:  # their end is not here yet
            if len(buffer) > self._bounds.max_head_bytes or _BARE.search(buffer):
                raise Refused(400, "bad_trailers", "these are no valid trailers")
            return NEED
        if end > self._bounds.max_head_bytes or _TRAILERS.fullmatch(bytes(buffer[:end])) is None:
            raise Refused(400, "bad_trailers", "these are no valid trailers")
        self._drop(end)
        self._state = self._head
        return END


def _judge(head: Head, bounds: Bounds) -> None:
    """Set what a head means for framing and for the connection. Raises Refused for what is ambiguous or not offered."""
    if head.method in _NOT_OFFERED:
        raise Refused(405, "method_not_allowed", f"{head.method.decode('ascii')} is not offered")
    if head.target == b"*" and head.method != b"OPTIONS":
        raise Refused(400, "bad_target", "the request target must be a path")
    if len(head.headers) > bounds.max_headers:
        raise Refused(431, "too_many_headers", f"more than {bounds.max_headers} headers")
    seen: set[bytes] = set()
    options: list[bytes] = []
    upgrade = b""
    for name, value in head.headers:
        if name not in bounds.looked_at:
            continue
        if name in bounds.single and name in seen:
            raise Refused(400, "duplicate_header", f"{name.decode('ascii')} was sent more than once")
        seen.add(name)
        if name == b"host":
            if _HOST.match(value) is None:
                raise Refused(400, "bad_host", "the Host header names no host")
        elif name == b"content-length":
            if _LENGTH.match(value) is None:
                raise Refused(400, "bad_length", "Content-Length must be one decimal number")
            head.length = int(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise Refused(501, "not_implemented", "chunked is the only transfer coding that is understood")
            if head.minor == 0:
                raise Refused(400, "ambiguous_length", "HTTP/1.0 has no Transfer-Encoding")
            head.length = CHUNKED
        elif name == b"connection":
            options += [option.strip(b" \t") for option in value.lower().split(b",")]
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise Refused(417, "bad_expectation", "only 100-continue can be expected")
            head.expects = head.minor == 1  # RFC 9110, 10.1.1: of HTTP/1.0 it is ignored
        elif name == b"upgrade":
            upgrade = value.lower()
    if b"transfer-encoding" in seen and b"content-length" in seen:
        raise Refused(400, "ambiguous_length", "Content-Length and Transfer-Encoding were both sent")
    if head.minor == 1 and b"host" not in seen:
        raise Refused(400, "no_host", "HTTP/1.1 demands a Host header")
    if b"close" in options:
        head.keep = False
    elif head.minor == 0 and b"keep-alive" in options:
        head.keep = True
    if b"upgrade" in seen:
        head.upgrade = bounds.websocket and upgrade == b"websocket" and b"upgrade" in options and head.minor == 1
        if not head.upgrade or head.method != b"GET" or head.length:
            raise Refused(400, "no_upgrade", "no upgrade of the protocol is offered")
    if not head.length:
        head.expects = False


def _why(head: bytes) -> Refused:
    """Why a head is no valid one, in the order in which a client would look for its mistake."""
    words = head.partition(b"\r\n")[0].split(b" ")
    if len(words) == 3 and _VERSION.match(words[2]):
        method, target, version = words
        if method == b"CONNECT":
            return Refused(405, "method_not_allowed", "CONNECT is not offered")
        if target[:1] != b"/" and words[:2] != [b"OPTIONS", b"*"]:
            return Refused(400, "bad_target", "the request target must be a path")
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            return Refused(505, "bad_version", "only HTTP/1.1 and HTTP/1.0 are spoken here")
    return Refused(400, "bad_request", "this is not a valid HTTP request")


def _origin_within(head: bytes) -> bytes:
    """The Origin of a head that is too large, so that its page may read why."""
    found = re.search(rb"\r\n[Oo][Rr][Ii][Gg][Ii][Nn]:[ \t]*([!-~]{1,256})[ \t]*\r\n", head)
    return b"" if found is None else found[1]
