"""What a signed request is given once only: something that its sender again, or a thief of the request, must not get.

Signatures of the gateway scheme hold for a minute, and reading and stopping may be repeated in it. A ticket may not: a
request that was captured would open the session's stream until long after the signature has run out. Purchases are
remembered by the ledger (records.py).
"""

from typing import Final, final

from engram.hotkeys import AuthError, Noted, PublicKey, ReplayStore
from engram.hotkeys.gateway_scheme import WINDOW_MS
from engram.hotkeys.scheme import check_window
from engram.hotkeys.verifier import CLOCKS_AHEAD_MS
from engram.http.errors import ApiError

REMEMBERED: Final = 20_000
REMEMBERED_OF_ONE: Final = 1_000
"""Of one hotkey, within the two minutes that a stamp may pass: far above what its rate allows."""
RETRY_AFTER_S: Final = 5


@final
class Once:
    """The requests that were given something; bounded, and empty after a start."""

    def __init__(self, *, started_ms: int, bound: int = REMEMBERED, per_sender: int = REMEMBERED_OF_ONE) -> None:
        """`started_ms` is when this memory began, in unix ms: what was signed before may have been taken before."""
        self._not_before_ms = started_ms + CLOCKS_AHEAD_MS
        self._replays = ReplayStore(bound=bound, per_sender=per_sender)

    def take(self, public_key: PublicKey, message_sha256: bytes, stamp_ms: int, *, now_ms: int) -> None:
        """Use up a request whose signature holds; called when nothing else stands against what it asks for.

        Raises ApiError: 401 `replayed` when it was used up before, `before_start` or `stale` when that cannot be
        known, 503 `busy` when there is no room, for this key or for all.
        """
        try:
            check_window(stamp_ms, now_ms, past_ms=WINDOW_MS, future_ms=WINDOW_MS, not_before_ms=self._not_before_ms)
        except AuthError as refused:
            raise ApiError(401, refused.code, refused.message, extra={"clock_skew_ms": refused.skew_ms}) from None
        match self._replays.note(public_key + message_sha256, expires_ms=stamp_ms + WINDOW_MS, now_ms=now_ms):
            case Noted.NEW:
                return
            case Noted.SEEN:
                raise ApiError(401, "replayed", "This signed request was received before; sign a new one.")
            case Noted.FORGOTTEN:
                raise ApiError(401, "stale", "The request is too old to know whether it is new; sign a new one.")
            case Noted.FULL:
                raise ApiError(
                    503,
                    "busy",
                    "Too many signed requests are remembered now; send it again later.",
                    headers=(("Retry-After", str(RETRY_AFTER_S)),),
                )
