"""Tickets for event streams, for clients that cannot sign (a browser's EventSource), and their renewals.

A ticket and its renewals are one lineage, which opens one session's stream and nothing else:

| token         | generation | travels in             | opens                                        | good for     |
|---------------|------------|------------------------|----------------------------------------------|--------------|
| ticket        | 0          | the URL                | once                                         | LIFETIME_S   |
| renewal       | 1, 2, …    | the stream's event ids | while no later one of its lineage has opened | RENEWAL_S    |

EventSource reconnects to the same URL with the last event id it received: the used ticket is refused, the renewal in
the id is accepted. A renewal may open twice, because the first answer may have been lost; the newest stream of a
lineage stays open, and its earlier streams end. Tokens are signed by this process and die with it; a client
that is refused asks for another ticket.
"""

import base64
import binascii
import hashlib
import hmac
import itertools
import struct
from typing import Final, final

import msgspec

LIFETIME_S: Final = 120
"""Lifetime of a ticket."""
RENEWAL_S: Final = 3_600
"""Lifetime of a renewal: how long a client may stay disconnected."""
OF_ONE_SESSION: Final = 64
"""Lineages remembered per session; beyond this the least recently used one is forgotten."""
REMEMBERED: Final = 20_000
"""Lineages remembered in total; beyond this the least recently used one is forgotten."""

_HEAD: Final = struct.Struct(">QQI")
_MAC_BYTES: Final = 16


class Lineage(msgspec.Struct):
    """A ticket and its renewals."""

    number: int
    session_id: str
    expires_at: float
    """When its newest token expires, in unix seconds."""
    issued: int = 0
    """The newest generation that was issued."""
    opened: int = -1
    """The newest generation that opened a stream."""
    openings: int = 0
    """The number of streams opened; only the newest stays open."""


class StreamAdmission(msgspec.Struct, frozen=True):
    """A token that may open a stream."""

    lineage: Lineage
    generation: int


@final
class Tickets:
    """Makes and checks tokens under one secret, and remembers which were used."""

    def __init__(self, secret: bytes, *, bound: int = REMEMBERED, per_session: int = OF_ONE_SESSION) -> None:
        """Raise ValueError for a secret of less than 32 bytes."""
        if len(secret) < 32:
            raise ValueError("a ticket secret has at least 32 bytes")
        self._secret = secret
        self._bound = bound
        self._per_session = per_session
        self._numbers = itertools.count()
        self._lineages: dict[int, Lineage] = {}
        self._of_session: dict[str, dict[int, Lineage]] = {}
        """Both tables are in the order in which lineages were last issued or renewed."""

    def __repr__(self) -> str:
        return f"<Tickets: {len(self._lineages)} lineages>"

    def issue(self, session_id: str, now_s: float) -> str:
        """Return a new ticket for the events of `session_id`."""
        of_session = self._of_session.get(session_id, {})
        if len(of_session) >= self._per_session:
            self._forget(next(iter(of_session.values())))
        if len(self._lineages) >= self._bound:
            self._forget(next(iter(self._lineages.values())))
        lineage = Lineage(next(self._numbers), session_id, int(now_s) + LIFETIME_S)
        self._remember(lineage)
        return self._token(lineage)

    def renew(self, lineage: Lineage, now_s: float) -> str:
        """Return the next renewal of a lineage; if the lineage was forgotten meanwhile, it opens nothing."""
        lineage.issued += 1
        lineage.expires_at = int(now_s) + RENEWAL_S
        if lineage.number in self._lineages:
            self._forget(lineage)
            self._remember(lineage)
        return self._token(lineage)

    def find(self, token: str, session_id: str, now_s: float) -> StreamAdmission | None:
        """Return the admission that `token` gives, None when it is used, expired or forged. Does not use the token."""
        raw = _decoded(token)
        if raw is None or len(raw) != _HEAD.size + _MAC_BYTES:
            return None
        head, mac = raw[: _HEAD.size], raw[_HEAD.size :]
        expires_at, number, generation = _HEAD.unpack(head)
        lineage = self._lineages.get(number)
        if not hmac.compare_digest(mac, self._mac(head, session_id)) or now_s >= expires_at or lineage is None:
            return None
        admission = StreamAdmission(lineage, generation)
        return admission if _may_open(admission) else None

    def open(self, admission: StreamAdmission) -> bool:
        """Use a token; return True when it opens a stream, which then replaces the earlier ones of its lineage."""
        if not _may_open(admission):
            return False
        admission.lineage.opened = admission.generation
        admission.lineage.openings += 1
        return True

    def _token(self, lineage: Lineage) -> str:
        head = _HEAD.pack(int(lineage.expires_at), lineage.number, lineage.issued)
        return base64.urlsafe_b64encode(head + self._mac(head, lineage.session_id)).decode("ascii").rstrip("=")

    def _mac(self, head: bytes, session_id: str) -> bytes:
        return hmac.new(self._secret, head + session_id.encode("utf-8"), hashlib.sha256).digest()[:_MAC_BYTES]

    def _remember(self, lineage: Lineage) -> None:
        self._lineages[lineage.number] = lineage
        self._of_session.setdefault(lineage.session_id, {})[lineage.number] = lineage

    def _forget(self, lineage: Lineage) -> None:
        del self._lineages[lineage.number]
        of_session = self._of_session[lineage.session_id]
        del of_session[lineage.number]
        if not of_session:
            del self._of_session[lineage.session_id]


def _may_open(admission: StreamAdmission) -> bool:
    opened = admission.lineage.opened
    return opened < 0 if admission.generation == 0 else opened <= admission.generation


def _decoded(token: str) -> bytes | None:
    if len(token) > 64 or not token.isascii():
        return None
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
