"""A replay guard's memory: bounded, and never shorter than the requests it guards against.

What has been noted is kept until its timestamp would no longer pass, and longer when nothing new is noted; nothing is
dropped early to make room. When there is no room, the answer is FULL (HTTP 503), for the one sender that has used its
share or for all.

Entries lie in buckets by the end of their lives. What a bucket held is forgotten only after the clock has passed its
end, and the floor then rises to there: a request whose life ends below the floor is refused (FORGOTTEN), so that a
clock that is set back does not let old requests in again.

Costs on one core: 3 µs to note, 190 bytes an entry; at most 64 entries are dropped at once, and the set is in 64 parts,
since the growth of one of 100,000 entries held up the loop for 3.5 ms.
"""

import heapq
from enum import Enum
from typing import Final, final

_DROPPED_AT_ONCE: Final = 64
_SENDER_BYTES: Final = 32
_PARTS: Final = 64


class Noted(Enum):
    """What became of a request."""

    NEW = "new"
    SEEN = "seen"
    FULL = "full"
    FORGOTTEN = "forgotten"
    """It may have been seen: its life had ended once by our clock, which has been set back since."""


@final
class ReplayStore:
    """The requests that were taken, for as long as they could be repeated."""

    def __init__(self, *, bound: int = 100_000, per_sender: int = 25_000, bucket_ms: int = 1_000) -> None:
        """Keep at most `bound` requests, of one sender at most `per_sender`; each up to `bucket_ms` too long."""
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
        """How many are kept."""
        return self._count

    def __contains__(self, key: bytes) -> bool:
        """Whether it is kept; nothing is noted by asking."""
        return key in self._seen[key[-1] % _PARTS]

    def note(self, key: bytes, *, expires_ms: int, now_ms: int) -> Noted:
        """Note a request whose signature holds; only NEW changes anything.

        `key` is `SignedRequest.replay_key`, whose first 32 bytes are the sender; `expires_ms` is the last moment at
        which its timestamp passes.
        """
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
