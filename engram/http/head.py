"""Parses the head of a request (RFC 9110, 9112) and decides framing and keep-alive from it.

- It is matched as a whole by one expression that lists what is allowed: method in capitals, a path (or `*`) as target,
  HTTP/1.0 or 1.1, lines ended by CR LF, names of token characters, values of visible characters, SP, HTAB and
  obs-text. No folded lines, no bare LF or CR, no space before a colon.
- Framing is unambiguous: at most one Content-Length (digits only), or `Transfer-Encoding: chunked` alone and only in
  HTTP/1.1; never both. Header fields that decide who is meant occur once.
- Its size and the number of its fields are bounded. Bytes that cannot begin one are refused as they come.
"""

import re
from typing import Final, final

import msgspec

from engram.http.framing import BARE, CHUNKED, FIELDS, LENGTH, Headers, Refused, fields

__all__ = ["SINGLE", "Bounds", "Head", "Refused", "check_begun", "read"]

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
_NOT_OFFERED = frozenset({b"CONNECT", b"TRACE"})


class Bounds(msgspec.Struct, frozen=True):
    """Bounds on a request's head and framing."""

    max_head_bytes: int = 32_768
    """Bytes of request line and fields, up to the empty line."""
    max_headers: int = 100
    max_extension_bytes: int = 1_024
    """Total bytes of chunk extensions of one body."""
    single: frozenset[bytes] = SINGLE
    websocket: bool = False
    """Whether `Upgrade: websocket` is accepted; every other upgrade is refused."""


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
    if lines.count(b"\r\n") > bounds.max_headers:  # before they are taken apart
        refused = Refused(431, "too_many_headers", f"more than {bounds.max_headers} headers")
        refused.bodyless, refused.origin = method == b"HEAD", _origin_within(raw)
        raise refused
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
    found = dict(head.headers)
    connection = found.get(b"connection", b"")
    if len(found) < len(head.headers):
        connection = _joined_connection(head.headers, bounds)
    if (host := found.get(b"host")) is not None:
        if _HOST.match(host) is None:
            raise Refused(400, "bad_host", "the Host header names no host")
    elif head.minor == 1:
        raise Refused(400, "no_host", "HTTP/1.1 demands a Host header")
    if (length := found.get(b"content-length")) is not None:
        if LENGTH.match(length) is None:
            raise Refused(400, "bad_length", "Content-Length must be one decimal number")
        head.length = int(length)
    if (coding := found.get(b"transfer-encoding")) is not None:
        _judge_coding(coding, head, counted=length is not None)
    if (expected := found.get(b"expect")) is not None:
        _judge_expectation(expected)
        head.expects = head.minor == 1 and head.length != 0  # RFC 9110, 10.1.1: of HTTP/1.0 it is ignored
    options = [option.strip(b" \t") for option in connection.lower().split(b",")] if connection else ()
    if b"close" in options:
        head.keep = False
    elif head.minor == 0 and b"keep-alive" in options:
        head.keep = True
    if (protocol := found.get(b"upgrade")) is not None:
        offered = bounds.websocket and protocol.lower() == b"websocket" and b"upgrade" in options and head.minor == 1
        if not offered or head.method != b"GET" or head.length:
            raise Refused(400, "no_upgrade", "no upgrade of the protocol is offered")
        head.upgrade = True


def _joined_connection(headers: Headers, bounds: Bounds) -> bytes:
    """Return the values of all Connection fields of a head that repeats some field. Raises Refused.

    Upgrade counts once too: its last value would be looked at alone.
    """
    seen: set[bytes] = set()
    for name, value in headers:
        if name in seen and (name in bounds.single or name == b"upgrade"):
            raise Refused(400, "duplicate_header", f"{name.decode('ascii')} was sent more than once")
        seen.add(name)
        if name == b"expect":
            _judge_expectation(value)
    return b",".join(value for name, value in headers if name == b"connection")


def _judge_expectation(value: bytes) -> None:
    if value.lower() != b"100-continue":
        raise Refused(417, "bad_expectation", "only 100-continue can be expected")


def _judge_coding(value: bytes, head: Head, *, counted: bool) -> None:
    """Set the framing of a head with Transfer-Encoding. Raises Refused."""
    if value.lower() != b"chunked":
        raise Refused(501, "not_implemented", "chunked is the only transfer coding that is understood")
    if head.minor == 0:
        raise Refused(400, "ambiguous_length", "HTTP/1.0 has no Transfer-Encoding")
    if counted:
        raise Refused(400, "ambiguous_length", "Content-Length and Transfer-Encoding were both sent")
    head.length = CHUNKED


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
    """Return the Origin of a head that is too large or has too many fields, so that its page can read the refusal."""
    found = re.search(rb"\r\n[Oo][Rr][Ii][Gg][Ii][Nn]:[ \t]*([!-~]{1,256})[ \t]*\r\n", head)
    return b"" if found is None else found[1]
