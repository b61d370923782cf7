"""The wire form of our own requests: parses the URL and writes the head, or refuses them."""

import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

import msgspec

from engram.http.errors import NotSent
from engram.http.framing import TOKEN

_URL = re.compile(
    r"(https?)://(?:[^/?#@]*@)?(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9A-Za-z\-._~!$&'()*+,;=%]+))(?::([0-9]{1,5}))?([/?][!\"$-~]*)?(?:#.*)?",
    re.IGNORECASE,
)
_METHOD = re.compile(r"[A-Z]{1,24}+")
_NAME = re.compile(TOKEN.decode() + "++")
_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_OURS: Final = frozenset(
    {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Hop-by-hop fields (RFC 9110, 7.6.1), which the client sets itself; a caller's are dropped."""
_NO_TRAILERS: Final = _OURS | {
    "authorization",
    "content-encoding",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "proxy-authorization",
}
_DEFAULTS: Final = {"user-agent": "engram", "accept": "*/*", "accept-encoding": "identity"}
CHUNKED: Final = -1
"""The length of a body whose size is not known."""

Origin: TypeAlias = tuple[bool, str, int]
"""TLS or not, host, port: requests with equal origins may share a connection."""


class Target(msgspec.Struct, frozen=True):
    """Where a request goes."""

    secure: bool
    host: str
    """Host name or literal address, in lower case; IPv6 without brackets."""
    port: int
    path: str
    """Path and query as they go on the wire."""
    authority: str
    """The Host header."""

    @property
    def origin(self) -> Origin:
        """The origin, whose requests may share connections."""
        return (self.secure, self.host, self.port)


def target(url: str) -> Target:
    """Parse an http or https URL; its user info and fragment are ignored. Raises NotSent for any other URL."""
    match = _URL.fullmatch(url)
    if match is None:
        raise NotSent(f"not an http or https URL, or one with characters to be percent-encoded: {url[:200]!r}")
    scheme, six, name, digits, path = match.groups()
    secure = len(scheme) == 5
    port = int(digits) if digits else 443 if secure else 80
    if not 0 < port < 65_536:
        raise NotSent(f"not an http or https URL: {url[:200]!r}")
    host = (six or name).lower()
    authority = f"[{host}]" if six else host
    if not path:
        path = "/"
    elif path[0] == "?":
        path = "/" + path
    return Target(secure, host, port, path, f"{authority}:{port}" if digits else authority)


def head(
    method: str,
    target: Target,
    headers: Mapping[str, str] | None,
    *,
    length: int | None,
    is_json: bool = False,
    keep: bool = True,
) -> bytes:
    """Return the head of a request, to its empty line; `length` is the body's, None without one. Raises NotSent.

    The caller's headers override ours and come first, in their order, except those for framing and for the connection.
    """
    if _METHOD.fullmatch(method) is None or method == "CONNECT":
        raise NotSent(f"not a method that can be sent: {method[:50]!r}")
    lines = {"host": target.authority}
    for name, value in (headers or {}).items():
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise NotSent(f"a header cannot be written on the wire: {name[:50]!r}")
        if (lower := name.lower()) not in _OURS:
            lines[lower] = value
    for name, value in _DEFAULTS.items():
        lines.setdefault(name, value)
    if is_json:
        lines.setdefault("content-type", "application/json")
    if length is not None:
        if length == CHUNKED:
            lines["transfer-encoding"] = "chunked"
        else:
            lines["content-length"] = str(length)
    if not keep:
        lines["connection"] = "close"
    fields = "".join([f"{name}: {value}\r\n" for name, value in lines.items()])
    return f"{method} {target.path} HTTP/1.1\r\n{fields}\r\n".encode("latin-1")


def trailer_lines(trailers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the trailers of a chunked body as they go on the wire. Raises ValueError for what may not be there.

    Source: RFC 9110, section 6.5.1: fields that frame, route or authenticate a message are no trailers.
    """
    lines = b""
    for raw_name, raw_value in trailers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None or name in _NO_TRAILERS:
            raise ValueError(f"a trailer cannot be sent: {name[:50]!r}")
        lines += raw_name + b": " + raw_value + b"\r\n"
    return lines
