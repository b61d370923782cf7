"""What is refused before any application sees it: requests that two HTTP implementations could read differently, and
those that no surface of ours takes.

A front server and we must agree where one request ends and the next begins (request smuggling), so ambiguous framing
is refused instead of interpreted. Every refusal closes its connection.
"""

import re
from collections.abc import Iterable
from typing import final

import h11

from engram.http.errors import ApiError

_SINGLE = frozenset(
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
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|(?:[0-9A-Za-z_-]{1,63}\.){0,32}[0-9A-Za-z_-]{1,63}\.?)(?::[0-9]{1,5})?\Z"
)
"""A name, an IPv4 address or an IPv6 address in brackets, and perhaps a port; frameworks fail on much of the rest."""
_FORBIDDEN_METHODS = frozenset({b"CONNECT", b"TRACE"})


@final
class Refused(Exception):
    """A request is answered by the connection itself, which is closed after it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.bodyless = False
        """The request was a HEAD: its answer has no body."""
        self.origin = b""
        """The request's Origin header, as far as it could be read."""


@final
class Guard:
    """The checks of a request's head, with this server's bounds."""

    def __init__(self, *, max_headers: int, max_body_bytes: int, single_headers: Iterable[bytes] = ()) -> None:
        """`single_headers` are lower-case names that may occur once only, besides those that always are."""
        self._max_headers = max_headers
        self._max_body_bytes = max_body_bytes
        self._single = _SINGLE | frozenset(single_headers)

    def check(self, request: h11.Request) -> None:
        """Raise Refused for a head that is ambiguous, too large, or asks for what no surface offers."""
        if request.method in _FORBIDDEN_METHODS:
            raise Refused(405, "method_not_allowed", f"{request.method.decode('ascii')} is not offered")
        if not request.target.startswith(b"/") and not (request.method == b"OPTIONS" and request.target == b"*"):
            raise Refused(400, "bad_target", "the request target must be a path")
        if request.http_version not in (b"1.1", b"1.0"):
            raise Refused(505, "bad_version", "only HTTP/1.1 and HTTP/1.0 are spoken here")
        headers = request.headers
        if len(headers) > self._max_headers:
            raise Refused(431, "too_many_headers", f"more than {self._max_headers} headers")
        seen: set[bytes] = set()
        for name, value in headers:
            if name in self._single:
                if name in seen:
                    raise Refused(400, "duplicate_header", f"{name.decode('ascii')} was sent more than once")
                seen.add(name)
                if name == b"host" and _HOST.match(value) is None:
                    raise Refused(400, "bad_host", "the Host header names no host")
            elif name == b"upgrade":
                raise Refused(400, "no_upgrade", "no upgrade of the protocol is offered")
            elif name == b"expect":
                self._check_expectation(value, headers)
        self._check_framing(request, seen)

    def _check_expectation(self, value: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
        if value.lower() != b"100-continue":
            raise Refused(417, "bad_expectation", "only 100-continue can be expected")
        if (declared_length(headers) or 0) > self._max_body_bytes:
            raise Refused(413, "body_too_large", f"a body may have {self._max_body_bytes} bytes")

    def _check_framing(self, request: h11.Request, seen: set[bytes]) -> None:
        if b"transfer-encoding" in seen:
            if b"content-length" in seen:
                raise Refused(400, "ambiguous_length", "Content-Length and Transfer-Encoding were both sent")
            if request.http_version == b"1.0":
                raise Refused(400, "ambiguous_length", "HTTP/1.0 has no Transfer-Encoding")


def refuse_encoded(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise ApiError 415 for a body that is compressed: nothing here unpacks it, and its bytes would mean something
    else. Source: RFC 9110, sections 8.4 and 15.5.16.
    """
    values = [value for name, value in headers if name == b"content-encoding"]
    codings = [coding.strip().lower() for value in values for coding in value.split(b",")]
    named = [coding for coding in codings if coding not in (b"", b"identity")]
    if named:
        shown = named[0].decode("latin-1")[:40]
        raise ApiError(
            415,
            "unsupported_encoding",
            f"a body with Content-Encoding {shown!r} is not taken: send it as it is",
            (("Accept-Encoding", "identity"),),
        )


def declared_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """The request's Content-Length (h11 has checked its form), or None when it is not declared."""
    for name, value in headers:
        if name == b"content-length":
            return int(value)
    return None
