"""Parses the head of a request (RFC 9110, 9112) and decides framing and keep-alive from it.

- It is matched as a whole by one expression that lists what is allowed: method in capitals, a path (or `*`) as target,
  HTTP/1.0 or 1.1, lines ended by CR LF, names of token characters, values of visible characters, SP, HTAB and
  obs-text. No folded lines, no bare LF or CR, no space before a colon.
- Framing is unambiguous: at most one Content-Length (digits only), or `Transfer-Encoding: chunked` alone and only in
  HTTP/1.1; never both. Header fields that decide who is meant occur once.
- Its size and the number of its fields are bounded. Bytes that cannot begin one are refused as they come.
"""

import re
from collections.abc import Iterable
from typing import Final, final

import msgspec

from engram.http.framing import BARE, CHUNKED, FIELDS, LENGTH, Headers, Refused, fields

__all__ = ["SINGLE", "Bounds", "Head", "Refused", "bounds", "check_begun", "read"]

_REQUEST_LINE = rb"([A-Z]{1,24}+) ((?:/[!-\"$-~]*+|\*)) HTTP/1\.([01])\r\n"
_HEAD = re.compile(_REQUEST_LINE + FIELDS)  # possessive: its time is linear, whatever is sent
_FIRST_LINE = re.compile(_REQUEST_LINE)
_FIRST_LINE_BEGUN = re.compile(rb"(?:[A-Z]{1,24}+(?: (?:[!-~]++(?: [!-~]*+\r?)?)?)?|\r)\Z")
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|(?:[0-9A-Za-z_-]{1,63}\.){0,32}[0-9A-Za-z_-]{1,63}\.?)(?::[0-9]{1,5})?\Z"
)
"""A name, an IPv4 address or an IPv6 address in brackets, and perhaps a port; frameworks fail on much of the rest."""
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
"""Request headers that must not be repeated, on any surface."""
_CONNECTION_FIELDS = frozenset({b"connection", b"expect", b"upgrade"})
_NOT_OFFERED = frozenset({b"CONNECT", b"TRACE"})


class Bounds(msgspec.Struct, frozen=True):
    """Bounds on a request's head and framing."""

    max_head_bytes: int = 32_768
    """Bytes of request line and fields, up to the empty line."""
    max_headers: int = 100
    max_extension_bytes: int = 1_024
    """Total bytes of chunk extensions of one body."""
    looked_at: frozenset[bytes] = SINGLE | _CONNECTION_FIELDS
    single: frozenset[bytes] = SINGLE
    websocket: bool = False
    """Whether `Upgrade: websocket` is accepted; every other upgrade is refused."""


def bounds(
    *, max_head_bytes: int, max_headers: int, single_headers: Iterable[bytes] = (), websocket: bool = False
) -> Bounds:
    """Return bounds with `single_headers` (lower case) added to the headers that must not be repeated anywhere."""
    single = SINGLE | frozenset(single_headers)
    return Bounds(
        max_head_bytes=max_head_bytes,
        max_headers=max_headers,
        looked_at=single | _CONNECTION_FIELDS,
        single=single,
        websocket=websocket,
    )


@final
class Head:
    """A request's head, and its consequences for framing and for the connection."""

    __slots__ = ("expects", "headers", "keep", "length", "method", "minor", "target", "upgrade")

    def __init__(self, method: bytes, target: bytes, minor: int, headers: Headers) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        """0 or 1, of HTTP/1.x."""
        self.headers = headers
        """Names in lower case, in the order in which they came."""
        self.keep = minor == 1
        """Whether the connection is kept open after the answer."""
        self.length = 0
        """The body's length in bytes, or CHUNKED."""
        self.expects = False
        """Whether the client waits for 100 (Continue) before it sends the body."""
        self.upgrade = False
        """Whether this is a WebSocket handshake (only where the bounds allow one)."""


def read(raw: bytes, bounds: Bounds) -> Head:
    """Parse a head, up to and including its empty line. Raises Refused."""
    match = _HEAD.fullmatch(raw)
    if match is None:
        raise _why(raw)
    method, target, minor, lines = match.groups()
    headers = fields(lines)
    head = Head(method, target, 1 if minor == b"1" else 0, headers)
    try:
        _judge(head, bounds)
    except Refused as refused:
        refused.bodyless = method == b"HEAD"
        refused.origin = next((value for name, value in headers if name == b"origin"), b"")
        raise
    return head


def check_begun(buffer: bytes | bytearray, searched: int, bounds: Bounds) -> None:
    """Refuse half a head, of which `searched` bytes have been looked at, where it cannot become one any more: garbage
    must not wait for the deadline of heads.
    """
    if len(buffer) > bounds.max_head_bytes:
        refused = Refused(431, "headers_too_large", f"the head may have {bounds.max_head_bytes} bytes")
        refused.origin = _origin_within(bytes(buffer[: bounds.max_head_bytes]))
        raise refused
    end = buffer.find(b"\r\n")
    line = _FIRST_LINE_BEGUN if end < 0 else _FIRST_LINE
    if line.match(buffer) is None or BARE.search(buffer, max(0, searched - 1)):
        raise _why(bytes(buffer[:end] if end >= 0 else buffer))


def _judge(head: Head, bounds: Bounds) -> None:
    """Set framing and keep-alive from a head. Raises Refused where they are ambiguous or not offered."""
    if head.method in _NOT_OFFERED:
        raise Refused(405, "method_not_allowed", f"{head.method.decode('ascii')} is not offered")
    if head.target == b"*" and head.method != b"OPTIONS":
        raise Refused(400, "bad_target", "the request target must be a path")
    if len(head.headers) > bounds.max_headers:
        raise Refused(431, "too_many_headers", f"more than {bounds.max_headers} headers")
    looked_at = bounds.looked_at
    seen: set[bytes] = set()
    connection = upgrade = b""
    for name, value in head.headers:
        if name not in looked_at:
            continue
        if name in seen and name in bounds.single:
            raise Refused(400, "duplicate_header", f"{name.decode('ascii')} was sent more than once")
        seen.add(name)
        if name == b"host":
            if _HOST.match(value) is None:
                raise Refused(400, "bad_host", "the Host header names no host")
        elif name == b"content-length":
            if LENGTH.match(value) is None:
                raise Refused(400, "bad_length", "Content-Length must be one decimal number")
            head.length = int(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise Refused(501, "not_implemented", "chunked is the only transfer coding that is understood")
            if head.minor == 0:
                raise Refused(400, "ambiguous_length", "HTTP/1.0 has no Transfer-Encoding")
            head.length = CHUNKED
        elif name == b"connection":
            connection += b"," + value.lower()
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
    options = [option.strip(b" \t") for option in connection.split(b",")] if connection else ()
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
    """Return the reason why a head is invalid, checking in the order that helps a client find its mistake."""
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
    """Return the Origin of a head that is too large, so that its page can read the refusal."""
    found = re.search(rb"\r\n[Oo][Rr][Ii][Gg][Ii][Nn]:[ \t]*([!-~]{1,256})[ \t]*\r\n", head)
    return b"" if found is None else found[1]
