"""How phones sign requests to the gateway.

Headers: `X-Hotkey` (SS58, or 64 hex digits of the public key), `X-Timestamp` (unix milliseconds), `X-Sig` (sr25519
signature in hex, with or without 0x), and optionally `X-Sig-Version` (1 or 2; 1 when absent).

The signed message, UTF-8, with the path's raw bytes as sent and without the query:

    version 1   engram-cloud:{METHOD}:{path}:{timestamp}
    version 2   engram-cloud:{METHOD}:{path}:{timestamp}:{sha256hex(body)}

The timestamp may be 60 s off either way. A signature over the `<Bytes>`-wrapped message counts, as wallets make it.
"""

import hashlib
from typing import Final

from engram.hotkeys.keypair import Keypair
from engram.hotkeys.scheme import Headers, Scheme, Signable, SignedRequest, verify_signed

WINDOW_MS: Final = 60_000
AUTH_HEADERS: Final = frozenset({b"x-hotkey", b"x-timestamp", b"x-sig", b"x-sig-version"})
"""Lower-case names that a request may carry at most once."""


def message(method: str, raw_path: bytes, timestamp: str, body: bytes | None) -> bytes:
    """Return the bytes that are signed; `body` is covered when it is not None (version 2)."""
    text = b"engram-cloud:%s:%s:%s" % (method.encode("ascii"), raw_path, timestamp.encode("ascii"))
    return text if body is None else text + b":" + hashlib.sha256(body).hexdigest().encode("ascii")


def _messages(parts: Signable) -> tuple[bytes]:
    return (message(parts.method, parts.raw_path, parts.timestamp, parts.body if parts.version == 2 else None),)


SCHEME: Final = Scheme(
    name="gateway",
    headers={"x-hotkey": "hotkey", "x-timestamp": "timestamp", "x-sig": "signature", "x-sig-version": "version"},
    required=frozenset({"hotkey", "timestamp", "signature"}),
    messages=_messages,
    past_ms=WINDOW_MS,
    future_ms=WINDOW_MS,
    versions=("1", "2"),
    repeatable=frozenset({"GET", "HEAD"}),
)


def verify_request(
    headers: Headers, method: str, raw_path: bytes, body: bytes, now_ms: int, *, not_before_ms: int = 0
) -> SignedRequest:
    """Return who signed a gateway request.

    `headers` are header lines as received (an ASGI scope's); `method` is upper case; `raw_path` has no query. Raises
    AuthError, whose `skew_ms` says how far the sender's clock is off.
    """
    return verify_signed(
        SCHEME,
        headers,
        method=method,
        raw_path=raw_path,
        body=body,
        now_ms=now_ms,
        not_before_ms=not_before_ms,
    )


def sign_request(
    keypair: Keypair, method: str, path: str | bytes, now_ms: int, body: bytes | None = None, version: int = 1
) -> dict[str, str]:
    """Return the headers that sign a request; `path` may carry a query, which is not signed.

    Version 2 covers `body` (None counts as empty). Raises ValueError for another version.
    """
    if version not in (1, 2):
        raise ValueError(f"there is no version {version} of the gateway scheme")
    raw_path = (path.encode("utf-8") if isinstance(path, str) else path).partition(b"?")[0]
    covered = (body or b"") if version == 2 else None
    signature = keypair.sign(message(method.upper(), raw_path, str(now_ms), covered))
    headers = {"X-Hotkey": keypair.ss58, "X-Timestamp": str(now_ms), "X-Sig": signature.hex()}
    return headers | {"X-Sig-Version": "2"} if version == 2 else headers
