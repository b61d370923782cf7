"""The open connections of a server: whether one more may enter, and which one is closed for it when all are taken.

An address may have `per_address` connections (an IPv6 /64 counts as one address). When all places are taken, the
address with the most connections loses one: of its connections without a request, the one that has been idle longest is
closed. An attacker therefore evicts itself as long as any of its addresses holds more than one connection. Addresses of
trusted proxies, which stand for many clients, are considered last.
"""

from collections.abc import Iterator
from typing import Final, Generic, Protocol, TypeVar, final

from engram.http.limits import ClientAddress, bucket_of

_ADDRESSES_LOOKED_AT: Final = 16


class Idling(Protocol):
    """What admission needs to know of a connection."""

    @property
    def idle_since(self) -> int | None:
        """Since which turn it has been idle (lower is longer); None while it has a request or one is arriving."""
        ...


C = TypeVar("C", bound=Idling)


@final
class Admission(Generic[C]):
    """The open connections by address."""

    def __init__(self, places: int, per_address: int, proxies: ClientAddress) -> None:
        """Take the bounds; `per_address` 0 sets no bound per address."""
        self._places = places
        self._per_address = per_address
        self._proxies = proxies
        self._open: dict[str, dict[C, None]] = {}
        self._by_count: dict[int, dict[str, None]] = {}
        self._most = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[C]:
        for connections in self._open.values():
            yield from connections

    @property
    def full(self) -> bool:
        """Whether all places are taken."""
        return self._size >= self._places

    def allows(self, peer: str) -> bool:
        """Return whether this address may have one more."""
        held = len(self._open.get(bucket_of(peer), ()))
        return not self._per_address or held < self._per_address or self._proxies.trusts(peer)

    def enter(self, peer: str, connection: C) -> None:
        """Count a connection in."""
        held = self._open.setdefault(bucket_of(peer), {})
        held[connection] = None
        self._size += 1
        self._moved(bucket_of(peer), len(held) - 1, len(held))

    def leave(self, peer: str, connection: C) -> None:
        """Count a connection out; calling it again is harmless."""
        bucket = bucket_of(peer)
        held = self._open.get(bucket, {})
        if connection not in held:
            return
        del held[connection]
        self._size -= 1
        self._moved(bucket, len(held) + 1, len(held))
        if not held:
            del self._open[bucket]

    def _moved(self, bucket: str, before: int, after: int) -> None:
        if before:
            peers = self._by_count[before]
            del peers[bucket]
            if not peers:
                del self._by_count[before]
        if after:
            self._by_count.setdefault(after, {})[bucket] = None
        self._most = max(self._most, after)
        while self._most and self._most not in self._by_count:
            self._most -= 1

    def to_evict(self) -> C | None:
        """Return the connection to close for a new one; None when the first addresses examined have no idle one."""
        last = None
        for bucket in self._crowded_first():
            chosen, since = None, None
            for connection in self._open[bucket]:
                idle_since = connection.idle_since
                if idle_since is not None and (since is None or idle_since < since):
                    chosen, since = connection, idle_since
            if chosen is None:
                continue
            if not self._proxies.trusts(bucket):
                return chosen
            last = last or chosen
        return last

    def _crowded_first(self) -> Iterator[str]:
        looked_at = 0
        for count in range(self._most, 0, -1):
            for bucket in self._by_count.get(count, ()):
                yield bucket
                looked_at += 1
                if looked_at == _ADDRESSES_LOOKED_AT:
                    return
