"""What a request's and an answer's head become on their way through. Pure.

- Hop-by-hop fields (RFC 9110, 7.6.1) and those that `Connection` names stay on their side.
- What authenticates the caller to this proxy, and whatever the proxy states itself, is removed before the backend:
  signatures, X-Forwarded-*, Forwarded, X-Real-IP, X-Epistula-Caller.
- A backend's CORS headers are removed: the proxy states its own.
- Everything else is kept, in its order, with its repetitions; bodies are never decoded.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import msgspec

from engram.http.framing import CHUNKED, Headers

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
_REBUILT: Final = frozenset(
    {
        b"content-length",
        b"expect",
        b"forwarded",
        b"host",
        b"x-epistula-caller",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
    }
)
SIGNING: Final = (b"epistula-", b"x-epistula-", b"x-chutes-", b"body-signature", b"x-internal-secret")
"""Beginnings of the names of headers that carry signatures and secrets."""
_CORS: Final = b"access-control-"
"""Which pages may call is the proxy's to say: a backend's own permission would undo it."""
_ANSWERED_BY_US: Final = frozenset({b"date", b"x-request-id"})
_NEVER_TRAILERS: Final = (
    HOP_BY_HOP
    | _REBUILT
    | {
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"cookie",
        b"range",
        b"set-cookie",
        b"trailer",
        b"www-authenticate",
    }
)
"""Fields that are not to be believed after a body (RFC 9110, 6.5.1), or that the proxy states itself: a server that
merges trailers into headers must not get by them what was kept from it as a header."""


class Origin(msgspec.Struct, frozen=True):
    """What the backend is told of the request's way here."""

    client: str
    """The client's address."""
    secure: bool
    host: bytes
    """The Host header as the client sent it."""
    request_id: str
    caller: str = ""
    """The proven key's SS58 address."""


def named_by_connection(headers: Headers) -> frozenset[bytes]:
    """Return the names that `Connection` gives: they are of this connection only."""
    values = [value for name, value in headers if name == b"connection"]
    if not values:
        return frozenset()
    return frozenset(option.strip(b" \t").lower() for value in values for option in value.split(b","))


def backend_path(base: str, path: bytes, query: bytes) -> bytes:
    """Return the target for a backend whose URL has the path `base`; `path` is the route's.

    >>> backend_path("/gpu/", b"/v1/x", b"a=1&a=2")
    b'/gpu/v1/x?a=1&a=2'
    """
    target = base.rstrip("/").encode("ascii") + path
    return target + b"?" + query if query else target


def request_lines(headers: Headers, origin: Origin, authority: str, length: int | None) -> Headers:
    """Return the header lines for the backend; `length` is the body's, CHUNKED, or None without one."""
    named = named_by_connection(headers)
    lines: Headers = [(b"host", authority.encode("ascii"))]
    lines += [(name, value) for name, value in headers if not _stays(name, value, named)]
    if length != CHUNKED:
        lines = [(name, value) for name, value in lines if name != b"trailer"]
    client = origin.client.encode("ascii", "replace")
    proto = b"https" if origin.secure else b"http"
    lines.append((b"x-forwarded-for", client))
    lines.append((b"x-forwarded-proto", proto))
    if origin.host:
        lines.append((b"x-forwarded-host", origin.host))
    lines.append((b"forwarded", _forwarded(origin, proto)))
    lines.append((b"x-request-id", origin.request_id.encode("ascii")))
    if origin.caller:
        lines.append((b"x-epistula-caller", origin.caller.encode("ascii")))
    if length == CHUNKED:
        lines.append((b"transfer-encoding", b"chunked"))
    elif length is not None:
        lines.append((b"content-length", b"%d" % length))
    return lines


def _stays(name: bytes, value: bytes, named: frozenset[bytes]) -> bool:
    return name in named or _stays_always(name) or _authorizes(name, value)


@lru_cache(maxsize=1_024)
def _stays_always(name: bytes) -> bool:
    name = name.replace(b"_", b"-")  # many servers read both as one: X_Forwarded_For must not stand in for ours
    return name in HOP_BY_HOP or name in _REBUILT or name.startswith(SIGNING)


def is_signature(name: bytes, value: bytes) -> bool:
    """Return whether a header line carries a signature or a secret of the caller."""
    return name.startswith(SIGNING) or _authorizes(name, value)


def _authorizes(name: bytes, value: bytes) -> bool:
    return name == b"authorization" and value[:9].lower() == b"epistula "


def _forwarded(origin: Origin, proto: bytes) -> bytes:
    """Return the Forwarded header (RFC 7239), rebuilt: what a client says of its way here cannot be believed."""
    try:
        node = origin.client if ipaddress.ip_address(origin.client).version == 4 else f'"[{origin.client}]"'
    except ValueError:
        node = "unknown"
    parts = [b"for=" + node.encode("ascii"), b"proto=" + proto]
    if origin.host:
        parts.append(b'host="%b"' % origin.host)
    return b";".join(parts)


def answer_lines(headers: Headers) -> Headers:
    """Return the header lines for the client; framing is the server's."""
    named = named_by_connection(headers)
    stays = HOP_BY_HOP | _ANSWERED_BY_US
    lines = [
        (name, value)
        for name, value in headers
        if name not in stays and name not in named and not name.startswith(_CORS)
    ]
    types = [value for name, value in lines if name == b"content-type"]
    if types and types[0].lower().startswith(b"text/event-stream"):
        present = {name for name, _ in lines}
        if b"x-accel-buffering" not in present:
            lines.append((b"x-accel-buffering", b"no"))
        if b"cache-control" not in present:
            lines.append((b"cache-control", b"no-cache"))
    return lines


def trailer_lines(headers: Headers) -> Headers:
    """Return the trailers of a request or an answer that may be passed on."""
    return [(name, value) for name, value in headers if _may_trail(name.replace(b"_", b"-"))]


def _may_trail(name: bytes) -> bool:
    return name not in _NEVER_TRAILERS and not name.startswith((*SIGNING, _CORS))


def first(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    """Return the first value of a header, None where there is none."""
    return next((value for name, value in headers if name == wanted), None)
