"""Tickets for event streams, for clients that cannot sign (a browser's EventSource), and their renewals.

A ticket and its renewals are one lineage, which opens one session's stream and nothing else:

| token         | generation | travels in             | opens                                        | good for     |
|---------------|------------|------------------------|----------------------------------------------|--------------|
| ticket        | 0          | the URL                | once                                         | LIFETIME_S   |
| renewal       | 1, 2, …    | the stream's event ids | while no later one of its lineage has opened | RENEWAL_S    |

EventSource comes back to the same URL with the last event id it saw: the used ticket is refused, the renewal in the id
is taken. A renewal may open twice, because the answer to the first time may have been lost; whoever opens last has the
stream, and the streams opened before with this lineage end. Tokens are signed by this process and die with it; a client
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
"""Of a ticket."""
RENEWAL_S: Final = 3_600
"""Of a renewal: how long a client may be away."""
OF_ONE_SESSION: Final = 64
"""Lineages remembered of a session; the one unused for longest is forgotten for a further one."""
REMEMBERED: Final = 20_000
"""Lineages remembered in all; the one unused for longest is forgotten for a further one."""

_HEAD: Final = struct.Struct(">QQI")
_MAC_BYTES: Final = 16


class Lineage(msgspec.Struct):
    """A ticket and its renewals."""

    number: int
    session_id: str
    expires_at: float
    """When its newest token ends, in unix seconds."""
    issued: int = 0
    """The newest generation."""
    opened: int = -1
    """The newest generation that opened a stream."""
    openings: int = 0
    """Streams opened; only the newest of them goes on."""


class Admission(msgspec.Struct, frozen=True):
    """A token that may open a stream."""

    lineage: Lineage
    generation: int


@final
class Tickets:
    """Makes and checks tokens under one secret, and remembers which were used."""

    def __init__(self, secret: bytes, *, bound: int = REMEMBERED, per_session: int = OF_ONE_SESSION) -> None:
        """Raises ValueError for a secret of less than 32 bytes."""
        if len(secret) < 32:
            raise ValueError("a ticket secret has at least 32 bytes")
        self._secret = secret
        self._bound = bound
        self._per_session = per_session
        self._numbers = itertools.count()
        self._lineages: dict[int, Lineage] = {}
        self._of_session: dict[str, dict[int, Lineage]] = {}
        """Both in the order in which they were issued or renewed last."""

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
        """Return the next renewal of a lineage; one that was forgotten meanwhile opens nothing."""
        lineage.issued += 1
        lineage.expires_at = int(now_s) + RENEWAL_S
        if lineage.number in self._lineages:
            self._forget(lineage)
            self._remember(lineage)
        return self._token(lineage)

    def find(self, token: str, session_id: str, now_s: float) -> Admission | None:
        """Return what `token` may open, None when it may not (any more). Uses nothing up."""
        raw = _decoded(token)
        if raw is None or len(raw) != _HEAD.size + _MAC_BYTES:
            return None
        head, mac = raw[: _HEAD.size], raw[_HEAD.size :]
        expires_at, number, generation = _HEAD.unpack(head)
        lineage = self._lineages.get(number)
        if not hmac.compare_digest(mac, self._mac(head, session_id)) or now_s >= expires_at or lineage is None:
            return None
        admission = Admission(lineage, generation)
        return admission if _may_open(admission) else None

    def open(self, admission: Admission) -> bool:
        """Use a token up: True when it opens a stream, which then is the only one of its lineage that goes on."""
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


def _may_open(admission: Admission) -> bool:
    opened = admission.lineage.opened
    return opened < 0 if admission.generation == 0 else opened <= admission.generation


def _decoded(token: str) -> bytes | None:
    if len(token) > 64 or not token.isascii():
        return None
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
