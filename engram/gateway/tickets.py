"""Short-lived tickets for event streams: signed by this process, kept nowhere.

A ticket names one session and the second it ends; it opens that session's stream and nothing else. It dies with the
process, and a client that is refused asks for another.
"""

import base64
import binascii
import hashlib
import hmac
import struct
from typing import Final, final

LIFETIME_S: Final = 120
_HEAD: Final = struct.Struct(">Q")
_MAC_BYTES: Final = 16


@final
class Tickets:
    """Makes and checks tickets under one secret."""

    def __init__(self, secret: bytes) -> None:
        """Raises ValueError for a secret of less than 32 bytes."""
        if len(secret) < 32:
            raise ValueError("a ticket secret has at least 32 bytes")
        self._secret = secret

    def __repr__(self) -> str:
        return "<Tickets>"

    def issue(self, session_id: str, now_s: float) -> str:
        """A ticket for the events of `session_id`, good for LIFETIME_S."""
        head = _HEAD.pack(int(now_s) + LIFETIME_S)
        return base64.urlsafe_b64encode(head + self._mac(head, session_id)).decode("ascii").rstrip("=")

    def admits(self, ticket: str, session_id: str, now_s: float) -> bool:
        """Whether `ticket` was issued by this process for `session_id` and has not ended."""
        raw = _decoded(ticket)
        if raw is None or len(raw) != _HEAD.size + _MAC_BYTES:
            return False
        head, mac = raw[: _HEAD.size], raw[_HEAD.size :]
        (ends_at,) = _HEAD.unpack(head)
        return hmac.compare_digest(mac, self._mac(head, session_id)) and now_s < ends_at

    def _mac(self, head: bytes, session_id: str) -> bytes:
        return hmac.new(self._secret, head + session_id.encode("utf-8"), hashlib.sha256).digest()[:_MAC_BYTES]


def _decoded(ticket: str) -> bytes | None:
    if len(ticket) > 64 or not ticket.isascii():
        return None
    try:
        return base64.b64decode(ticket + "=" * (-len(ticket) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
