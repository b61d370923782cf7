"""The replay guard: a signed request is accepted at most once.

A signature proves who made a request, not that it is new. Each request carries a timestamp that is accepted only
inside a window around our clock, so a guard has to remember requests for no longer than that window.

What is remembered   The public key and the sha256 of the signed message (`SignedRequest.replay_key`) of each request
                     that was accepted. A refused request takes no room. Under one of two policies:
                     `require_new`   once; where the caller says so, a repetition passes too (GET and HEAD)
                     `FirstUse`      a signature that names no operation (version 1 of the namespace signature) is
                                     bound to the first operation and body that it arrives with
For how long         Until the end of its window, in memory; up to one bucket longer.
When it is full      A new request is refused with `busy` (HTTP 503), for the one sender that has used up its share or
                     for all. Nothing is dropped early to make room.
Restarts             Memory is lost, so what was stamped before the start is refused (`before_start`). A request
                     stamped ahead of our clock could be accepted again after a restart: `Verifier` refuses
                     CLOCKS_AHEAD_MS more after each start; a node, whose window is wide, writes the latest such
                     second to disk before it accepts the request (`ReplayFloor`).
A clock set back     What has ended once by our clock is refused from then on (`stale`), whatever the clock says later.
                     Not covered: a clock that is set back and stays behind over a restart, when the new process takes
                     requests of the old one's last seconds for requests from the future.

Purchases and tickets are not kept here: the ledger remembers their requests together with what they got.

Costs on one core: 3 µs to note a request, 190 bytes each. At most 64 are dropped at once, and the set is split in 64
parts, since the growth of one of 100,000 entries held up the loop for 3.5 ms.
"""

import hashlib
import heapq
from enum import Enum
from pathlib import Path
from typing import Final, final

from engram import files
from engram.hotkeys.errors import AuthError
from engram.hotkeys.scheme import SignedRequest

CLOCKS_AHEAD_MS: Final = 2_000
"""How far ahead of ours the clocks of senders are taken to be when this process has just started."""
_DROPPED_AT_ONCE: Final = 64
_SENDER_BYTES: Final = 32
_PARTS: Final = 64


class Noted(Enum):
    """What a ReplayStore found."""

    NEW = "new"
    SEEN = "seen"
    FULL = "full"
    FORGOTTEN = "forgotten"
    """It may have been seen: its window ended once by our clock, which has been set back since."""


@final
class ReplayStore:
    """The accepted requests, in buckets by the end of their windows.

    A bucket is dropped once the clock has passed its end, and the floor rises to there: a request whose window ends
    below the floor is FORGOTTEN.
    """

    def __init__(self, *, bound: int = 100_000, per_sender: int = 25_000, bucket_ms: int = 1_000) -> None:
        """Keep at most `bound` requests, at most `per_sender` of one sender; each up to `bucket_ms` too long."""
        self._bound = bound
        self._per_sender = per_sender
        self._bucket_ms = bucket_ms
        self._count = 0
        self._seen: tuple[set[bytes], ...] = tuple(set() for _ in range(_PARTS))
        self._of_sender: tuple[dict[bytes, int], ...] = tuple({} for _ in range(_PARTS))
        self._buckets: dict[int, list[bytes]] = {}
        self._ends: list[int] = []
        self._floor_ms = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: bytes) -> bool:
        return key in self._seen[key[-1] % _PARTS]

    def note(self, key: bytes, *, expires_ms: int, now_ms: int) -> Noted:
        """Note a request whose signature holds; only NEW changes anything.

        `key` is `SignedRequest.replay_key`, whose first 32 bytes are the sender; `expires_ms` is the last moment at
        which its timestamp passes.
        """
        if self._ends and self._ends[0] <= now_ms:
            self._drop(now_ms)
        seen = self._seen[key[-1] % _PARTS]
        if key in seen:
            return Noted.SEEN
        if expires_ms < self._floor_ms:
            return Noted.FORGOTTEN
        sender = key[:_SENDER_BYTES]
        counts = self._of_sender[sender[-1] % _PARTS]
        of_sender = counts.get(sender, 0)
        if self._count >= self._bound or of_sender >= self._per_sender:
            return Noted.FULL
        seen.add(key)
        counts[sender] = of_sender + 1
        self._count += 1
        end = expires_ms - expires_ms % self._bucket_ms + self._bucket_ms
        if end not in self._buckets:
            self._buckets[end] = []
            heapq.heappush(self._ends, end)
        self._buckets[end].append(key)
        return Noted.NEW

    def require_new(
        self, key: bytes, *, expires_ms: int, now_ms: int, skew_ms: int | None = None, repeatable: bool = False
    ) -> None:
        """Note a request as `note` does, or raise AuthError: replay (unless `repeatable`), stale or busy."""
        noted = self.note(key, expires_ms=expires_ms, now_ms=now_ms)
        if noted is Noted.NEW:
            return
        match noted:
            case Noted.SEEN:
                if not repeatable:
                    raise AuthError("replay", "this signed request was received before; sign a new one", skew_ms)
            case Noted.FORGOTTEN:
                raise AuthError("stale", "the request is too old to know whether it is new; sign a new one", skew_ms)
            case Noted.FULL:
                raise AuthError("busy", "too many signed requests at once; try again later", skew_ms)

    def _drop(self, now_ms: int) -> None:
        for _ in range(_DROPPED_AT_ONCE):
            if not self._ends or self._ends[0] > now_ms:
                return
            end = self._ends[0]
            self._floor_ms = max(self._floor_ms, end)
            bucket = self._buckets[end]
            self._forget(bucket.pop())
            if not bucket:
                heapq.heappop(self._ends)
                del self._buckets[end]

    def _forget(self, key: bytes) -> None:
        self._seen[key[-1] % _PARTS].discard(key)
        self._count -= 1
        sender = key[:_SENDER_BYTES]
        counts = self._of_sender[sender[-1] % _PARTS]
        left = counts[sender] - 1
        if left:
            counts[sender] = left
        else:
            del counts[sender]


@final
class FirstUse:
    """Binds each signature that names no operation to the first operation and body that it arrives with.

    Version 1 of the namespace signature covers a name and a time: a copy could authorize anything for a minute. Every
    client of the original signs each request by itself, so a signature is good for one endpoint and one body. A read
    may be repeated; a write is accepted once, else a copy would bring back what its owner has deleted since.

    Signatures are known by their own bytes: two requests of one millisecond sign the same text, and sr25519 signatures
    are randomized, so that only the holder of the key can make another one. A request that is held back on its way
    leaves its signature to the one who holds it: version 2, which covers the body, does not.
    """

    def __init__(self, *, window_ms: int, bound: int = 300_000, per_sender: int = 100_000) -> None:
        """`window_ms` is how long a signature holds; each takes two places."""
        self._window_ms = window_ms
        self._store = ReplayStore(bound=bound, per_sender=per_sender)

    def accept(
        self,
        signed: SignedRequest,
        signature: str,
        endpoint: str,
        body_sha256: bytes,
        *,
        now_ms: int,
        repeatable: bool,
    ) -> None:
        """Bind a signature that holds, or check what it is bound to; `signature` is in hex as it was sent.

        Raises AuthError: bound_elsewhere when it came with another request, replay unless `repeatable`, stale, busy.
        """
        sent = signature.removeprefix("0x").lower().encode()
        known = signed.public_key + hashlib.sha256(sent).digest()
        use = signed.public_key + hashlib.sha256(b"%s:%s:%s" % (sent, endpoint.encode(), body_sha256)).digest()
        if known in self._store:
            if use not in self._store:
                raise AuthError("bound_elsewhere", "this signature came with another request; sign each request")
            if not repeatable:
                raise AuthError("replay", "this signed request was received before; sign a new one")
            return
        expires_ms = signed.timestamp_ms + self._window_ms
        for key in (use, known):  # a use without its signature was refused as `busy` and may come again
            self._store.require_new(key, expires_ms=expires_ms, now_ms=now_ms, repeatable=True)


@final
class ReplayFloor:
    """A unix time in ms, in one file, before which a new process accepts nothing: past every accepted timestamp that
    was ahead of the clock. Raised by whole seconds, so that a second of timestamps costs one write."""

    NAME: Final = "stamps-ahead"

    def __init__(self, folder: Path, *, now_ms: int, longest_ms: int) -> None:
        """Read what the last process left (blocking). Raises OSError.

        A floor beyond `now_ms + longest_ms` was written under a wrong clock, or is damaged: one window is refused.
        """
        self._file = folder / self.NAME
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            content = b"0"
        highest_ms = now_ms + longest_ms
        self.ms = min(int(content), highest_ms) if content.isdigit() else highest_ms

    def covers(self, timestamp_ms: int, *, now_ms: int) -> bool:
        """Whether no later process accepts this timestamp: our clock has passed it, or it is below the floor."""
        return timestamp_ms <= now_ms or timestamp_ms < self.ms

    def raise_above(self, timestamp_ms: int) -> None:
        """Make the floor cover a timestamp (blocking; one caller at a time).

        Raises OSError: then the request must not be accepted.
        """
        if timestamp_ms < self.ms:
            return
        floor_ms = timestamp_ms // 1_000 * 1_000 + 1_000
        files.put(self._file, b"%d" % floor_ms)
        self.ms = floor_ms
