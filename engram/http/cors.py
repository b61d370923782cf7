"""CORS: the origins whose web pages may call a surface. Credentials (cookies) are never allowed."""

from collections.abc import Iterable
from typing import Final, final

from engram.http.asgi import HeaderLines

EXPOSED: Final = (
    "PAYMENT-REQUIRED",
    "PAYMENT-RESPONSE",
    "X-PAYMENT-RESPONSE",
    "WWW-Authenticate",
    "X-Payment-Network",
    "X-Payment-Amount-USD",
    "X-Gateway-Hotkey",
    "X-Gateway-Sig",
    "X-Request-Id",
    "Retry-After",
    "Location",
)
"""Response headers that scripts may read."""

ALLOWED: Final = (
    "Content-Type",
    "X-Hotkey",
    "X-Timestamp",
    "X-Sig",
    "X-Sig-Version",
    "X-Payment",
    "PAYMENT-SIGNATURE",
    "Idempotency-Key",
    "Last-Event-ID",
    "X-Request-Id",
    "Access-Control-Expose-Headers",
)
"""Request headers that scripts may send. x402's clients send the last one, a response header, with each payment."""

_METHODS: Final = b"GET, HEAD, POST, DELETE, PATCH, PUT"
_MAX_AGE_S: Final = b"600"


@final
class Cors:
    """Returns the CORS headers for each origin."""

    def __init__(
        self, origins: Iterable[str], *, allowed: Iterable[str] = ALLOWED, exposed: Iterable[str] = EXPOSED
    ) -> None:
        """Take the origins: exact (`https://app.example`), or `*` for any; none disables CORS.

        Their pages may send the headers `allowed`, and read those `exposed`.
        """
        self._origins = frozenset(each.rstrip("/").encode("ascii") for each in origins)
        self._any = b"*" in self._origins
        self._exposed = (b"access-control-expose-headers", ", ".join(exposed).encode("ascii"))
        self._allowed = (b"access-control-allow-headers", ", ".join(allowed).encode("ascii"))

    def headers(self, origin: bytes) -> HeaderLines:
        """Return the lines for every answer to a request with this Origin header (b"" when it had none)."""
        if self._any:
            return ((b"access-control-allow-origin", b"*"), self._exposed)
        if not self._origins:
            return ()
        if origin not in self._origins:
            return ((b"vary", b"Origin"),)
        return ((b"access-control-allow-origin", origin), (b"vary", b"Origin"), self._exposed)

    def preflight(self, origin: bytes) -> HeaderLines | None:
        """Return the lines of the answer to a preflight, or None when this origin is not allowed."""
        if not origin or not (self._any or origin in self._origins):
            return None
        return (
            (b"access-control-allow-methods", _METHODS),
            self._allowed,
            (b"access-control-max-age", _MAX_AGE_S),
        )
