"""Rate limits (token buckets by GCRA, per client address and per hotkey), and a bound on the bytes of request bodies
held at once.

A bucket is one number (the time at which it will be full again), kept in a bounded table; the least recently seen
caller is forgotten first. Only authenticated callers may be keys where forging is cheap: addresses behind trusted
proxies, hotkeys after their signature was verified.
"""

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable
from math import ceil, inf
from typing import Final, TypeAlias, final

from engram.http.framing import Refused

_TABLE: Final = 100_000
"""Buckets kept; about 20 MB when full."""
_MAPPED_BITS: Final = 96
"""The prefix of IPv4 addresses that are written as IPv6 ones (RFC 4291, 2.5.5.2)."""

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@final
class Limiter:
    """Allows `per_minute` requests on average and `burst` at once; `per_minute` 0 allows everything."""

    def __init__(self, per_minute: float, burst: int, monotonic: Callable[[], float], *, table: int = _TABLE) -> None:
        """Raise ValueError for a negative rate or a burst below 1."""
        if per_minute < 0 or burst < 1 or table < 1:
            raise ValueError(f"no limiter of {per_minute} a minute, {burst} at once, {table} buckets")
        self._interval_s = 60.0 / per_minute if per_minute else 0.0
        self._tolerance_s = self._interval_s * (burst - 1)
        self._monotonic = monotonic
        self._table = table
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def take(self, key: Hashable, cost: int = 1) -> float:
        """Take `cost` tokens from `key`'s bucket; return 0.0, or the seconds to wait when there are too few.

        A refused request takes no tokens, so a caller that keeps calling is still served at its rate.
        """
        if not self._interval_s:
            return 0.0
        now = self._monotonic()
        full_at = max(self._full_at.get(key, now), now)
        wait_s = full_at + (cost - 1) * self._interval_s - now - self._tolerance_s
        if wait_s > 1e-9:
            return wait_s
        self._full_at[key] = full_at + cost * self._interval_s
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._table:
            self._full_at.popitem(last=False)
        return 0.0

    def __len__(self) -> int:
        return len(self._full_at)


def too_often(wait_s: float) -> Refused:
    """Return the 429 for a caller that must wait `wait_s` seconds."""
    seconds = max(1, ceil(wait_s)) if wait_s != inf else 60
    refused = Refused(429, "rate_limited", f"too many requests; try again in {seconds} s")
    refused.retry_s = seconds
    return refused


def burst_of(per_minute: int) -> int:
    """Return the burst that a rate allows: a sixth of a minute's requests, at least 10."""
    return max(10, per_minute // 6)


@final
class ClientAddress:
    """Finds a client's address behind trusted proxies."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        """Take the trusted networks: CIDR blocks or single addresses. Raises ValueError for anything else."""
        self._trusted: tuple[Network, ...] = ()
        self.trust(trusted)

    def trust(self, networks: Iterable[str]) -> None:
        """Trust these networks from now on, and no others. Raises ValueError for anything else, and changes nothing."""
        self._trusted = tuple(_network(each) for each in networks)

    def of(self, peer: str, forwarded: Iterable[str] = ()) -> str:
        """Return the address of the client that talks to our outermost trusted proxy.

        `forwarded` are the X-Forwarded-For lines in order. Only entries that trusted proxies added are believed: the
        list is read from its end, and the first address that is not a trusted proxy's is the client. An entry that is
        not an address ends the search.
        """
        if not self._trusted or not self.trusts(peer):
            return peer
        client = peer
        for entry in reversed(",".join(forwarded).split(",")):
            address = unmapped(entry.strip().removeprefix("[").removesuffix("]"))
            try:
                ipaddress.ip_address(address)
            except ValueError:
                break
            client = address
            if not self.trusts(address):
                break
        return client

    def trusts(self, address: str) -> bool:
        """Return whether the address is one of our proxies."""
        if not self._trusted:
            return False
        try:
            parsed = ipaddress.ip_address(unmapped(address))
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)


@final
class BodyRoom:
    """Bounds the bytes of request bodies held at once: no address may hold more than it leaves free for all others.

    One address alone has at most half, two a third each at most, and some is left however many there are: the dynamic
    thresholds of shared packet buffers (Choudhury and Hahne, 1998).
    """

    def __init__(self, in_all: int) -> None:
        self._in_all = in_all
        self._held: Counter[str] = Counter()
        self._sum = 0

    def resize(self, in_all: int) -> None:
        """Change the bound; what is held stays counted."""
        self._in_all = in_all

    def enter(self, bucket: str, size: int) -> bool:
        """Count an address's bytes in; return False and count nothing when there is no room for them."""
        if self._held[bucket] + size > self._in_all - self._sum - size:
            return False
        self._held[bucket] += size
        self._sum += size
        return True

    def leave(self, bucket: str, size: int) -> None:
        """Count bytes out that `enter` counted in."""
        self._sum -= size
        self._held[bucket] -= size
        if not self._held[bucket]:
            del self._held[bucket]

    def __len__(self) -> int:
        return self._sum


def unmapped(address: str) -> str:
    """Return an IPv4 address as itself where it is written as an IPv6 one (`::ffff:192.0.2.1`), as sockets of both
    families write it; anything else unchanged."""
    if ":" in address:
        try:
            parsed = ipaddress.IPv6Address(address)
        except ValueError:
            return address
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
    return address


def _network(written: str) -> Network:
    network = ipaddress.ip_network(written, strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        return network if mapped is None else ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def bucket_of(address: str) -> str:
    """Return the bucket of an address: itself, or the /64 of an IPv6 address, which belongs to one customer."""
    address = unmapped(address)
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
