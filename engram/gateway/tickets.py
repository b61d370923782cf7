"""Tickets for event streams, for clients that cannot sign (a browser's EventSource), and their renewals.

A ticket and its renewals are one lineage, which opens one session's stream and nothing else:

| token         | generation | travels in             | opens                                        | good for     |
|---------------|------------|------------------------|----------------------------------------------|--------------|
| ticket        | 0          | the URL                | once                                         | LIFETIME_S   |
| renewal       | 1, 2, …    | the stream's event ids | while no later one of its lineage has opened | RENEWAL_S    |

EventSource reconnects to the same URL with the last event id it received: the used ticket is refused, the renewal in
the id is accepted. A renewal may open twice, because the first answer may have been lost; the newest stream of a
lineage stays open, and its earlier streams end.

Tokens are signed with a secret of the ledger, which remembers the lineages that have opened (ticket_records.py): they
hold over a restart, and at every gateway of the ledger.
"""

import base64
import binascii
import hashlib
import hmac
import struct
from typing import Final

import msgspec

LIFETIME_S: Final = 120
"""Lifetime of a ticket."""
RENEWAL_S: Final = 3_600
"""Lifetime of a renewal: how long a client may stay disconnected."""
SECRET_BYTES: Final = 32

_HEAD: Final = struct.Struct(">QQI")
_MAC_BYTES: Final = 16


class StreamToken(msgspec.Struct, frozen=True):
    """A ticket (generation 0) or a renewal."""

    lineage: int
    session_id: str
    generation: int
    expires_at: int
    """Unix seconds."""


def write(token: StreamToken, secret: bytes) -> str:
    """Return a token's text."""
    head = _HEAD.pack(token.expires_at, token.lineage, token.generation)
    return base64.urlsafe_b64encode(head + _mac(head, token.session_id, secret)).decode("ascii").rstrip("=")


def read(text: str, session_id: str, secret: bytes, now_s: float) -> StreamToken | None:
    """Return the token of that text, None when it is forged, expired or of another session."""
    raw = _decoded(text)
    if raw is None or len(raw) != _HEAD.size + _MAC_BYTES:
        return None
    head, mac = raw[: _HEAD.size], raw[_HEAD.size :]
    expires_at, lineage, generation = _HEAD.unpack(head)
    if not hmac.compare_digest(mac, _mac(head, session_id, secret)) or now_s >= expires_at:
        return None
    return StreamToken(lineage, session_id, generation, expires_at)


def may_open(generation: int, opened: int | None) -> bool:
    """Return whether a token opens a stream; `opened` is the newest generation of its lineage that did, None before
    the first.

    >>> may_open(0, None), may_open(0, 0), may_open(3, 3), may_open(3, 4), may_open(3, None)
    (True, False, True, False, False)
    """
    if generation == 0:
        return opened is None
    return opened is not None and opened <= generation


def _mac(head: bytes, session_id: str, secret: bytes) -> bytes:
    return hmac.new(secret, head + session_id.encode("utf-8"), hashlib.sha256).digest()[:_MAC_BYTES]


def _decoded(text: str) -> bytes | None:
    if len(text) > 64 or not text.isascii():
        return None
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
