"""What a signature that names no operation was first used for, and that it is used for nothing else.

Version 1 of the namespace signature covers a name and a time, so whoever reads one could ask anything with it for a
minute. Every client of the original signs anew for each request; so a signature is good for the endpoint and the
bytes that it first came with. A read may come again as it was; a write is taken once, else a copy of a request
would bring back what its owner has deleted since.

Signatures are told apart by their own bytes, not by what they sign: two requests of one millisecond have the same text
and, sr25519 being randomised, two signatures, of which nobody without the key can make a third.

It does not help where a request never arrives: who holds one back may use its signature first. Version 2 does.
"""

from __future__ import annotations

import hashlib
from typing import Final, final

from engram.hotkeys import Noted, ReplayStore, miner_scheme
from engram.hotkeys.scheme import SignedRequest
from engram.miner.errors import Refused

_READS: Final = frozenset(
    {
        "QuerySynapse",
        "list",
        "LookupBatch",
        "retrieve",
        "ChallengeSynapse",
        "commitment",
        "prove-memory",
        "KeyShareRetrieve",
    }
)
"""Endpoints that change nothing: as the original, a node answers the same request again."""


@final
class FirstUses:
    """Bounded, and forgets nothing while it could be used; each signature takes two places."""

    def __init__(self, *, bound: int = 300_000, per_sender: int = 100_000) -> None:
        self._noted = ReplayStore(bound=bound, per_sender=per_sender)

    def require_first(
        self, signed: SignedRequest, signature: str, endpoint: str, body_sha256: bytes, now_ms: int
    ) -> None:
        """Raises Refused: 403 when the signature came with another request, or with this one that changes something;
        503 when there is no room to remember it.

        `signature` is in hex as it was sent, and holds.
        """
        spelled = signature.removeprefix("0x").lower().encode()
        stamp = signed.public_key + hashlib.sha256(spelled).digest()
        use = signed.public_key + hashlib.sha256(b"%s:%s:%s" % (spelled, endpoint.encode(), body_sha256)).digest()
        if stamp in self._noted:
            if use not in self._noted:
                text = "This namespace signature came with another request before: sign each request anew."
                raise Refused(403, "namespace_signature_used", text)
            if endpoint not in _READS:
                raise Refused(403, "replayed", "This signed request was received before.")
            return
        expires_ms = signed.timestamp_ms + miner_scheme.NAMESPACE_WINDOW_MS
        for key in (use, stamp):
            match self._noted.note(key, expires_ms=expires_ms, now_ms=now_ms):
                case Noted.FULL:
                    raise Refused(503, "busy", "Too many signed requests at once; try again in a minute.")
                case Noted.FORGOTTEN:
                    raise Refused(403, "replayed", "This signed request may have been received before: sign it anew.")
                case Noted.NEW | Noted.SEEN:
                    pass
