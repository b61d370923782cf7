"""The open connections of a server: whether one more may enter, and which one is closed for it when all are taken.

An address may have `per_address` connections (an IPv6 /64 counts as one address). When all places are taken, the
address with the most connections loses one: of its connections without a whole request, the one that has been idle
longest is closed. An attacker therefore evicts itself as long as any of its addresses holds more than one connection.
Addresses of trusted proxies, which stand for many clients, are considered last. Before all others goes a connection
that has ended: its answer has been sent, and only the client's closing is awaited. Of an address with several
connections of which none is idle, the one goes that has waited longest for its client to take more of its answer.
"""

from collections.abc import Iterator
from itertools import islice
from operator import itemgetter
from typing import Final, Generic, Protocol, TypeVar, final

from engram.http.limits import ClientAddress, bucket_of

_ADDRESSES_LOOKED_AT: Final = 64
_COMPARED: Final = 64
"""Connections of addresses with equally many that are compared by how long they have been idle."""


class Idling(Protocol):
    """What admission needs to know of a connection."""

    @property
    def idle_since(self) -> int | None:
        """Since which turn it has been idle (lower is longer); None while it has a whole request or one is read."""
        ...

    @property
    def blocked_since(self) -> int | None:
        """Since which turn its client has taken nothing of its answer; None while it waits for no client."""
        ...

    @property
    def arriving(self) -> bool:
        """Whether more of a request has arrived that was not read yet. Asks the kernel."""
        ...


C = TypeVar("C", bound=Idling)
_since: Final = itemgetter(0)


@final
class Admission(Generic[C]):
    """The open connections by address."""

    def __init__(self, places: int, per_address: int, proxies: ClientAddress) -> None:
        """Take the bounds; `per_address` 0 sets no bound per address."""
        self._places = places
        self._per_address = per_address
        self._proxies = proxies
        self._open: dict[str, dict[C, str]] = {}
        self._by_count: dict[int, dict[str, None]] = {}
        self._ended: dict[C, None] = {}
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
        held[connection] = peer
        self._size += 1
        self._moved(bucket_of(peer), len(held) - 1, len(held))

    def end(self, connection: C) -> None:
        """Note that a connection awaits no request any more: it is the first to be closed for a new one."""
        self._ended[connection] = None

    def leave(self, peer: str, connection: C) -> None:
        """Count a connection out; calling it again is harmless."""
        self._ended.pop(connection, None)
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
        """Return the connection to close for a new one; None when the first addresses examined have none."""
        if (ended := next(iter(self._ended), None)) is not None:
            return ended
        last = None
        trusted: dict[str, bool] = {}
        for buckets in self._crowded_first():
            held = [entry for bucket in buckets for entry in self._open[bucket].items()]
            idle = [(since, each, peer) for each, peer in held if (since := each.idle_since) is not None]
            idle.sort(key=_since)
            if len(held) > len(buckets):  # of addresses that hold several: those come before a lone one that is idle
                idle += sorted(
                    ((since, each, peer) for each, peer in held if (since := each.blocked_since) is not None),
                    key=_since,
                )
            for _, each, peer in idle:
                if peer not in trusted:
                    trusted[peer] = self._proxies.trusts(peer)
                if (trusted[peer] and last is not None) or each.arriving:
                    continue
                if not trusted[peer]:
                    return each
                last = each
        return last

    def _crowded_first(self) -> Iterator[tuple[str, ...]]:
        """Yield addresses in groups, within which all have as many connections and the longest idle one is to go."""
        left = _ADDRESSES_LOOKED_AT
        for count in range(self._most, 0, -1):
            buckets = iter(self._by_count.get(count, ()))
            while group := tuple(islice(buckets, min(left, max(1, _COMPARED // count)))):
                yield group
                left -= len(group)
            if not left:
                return
