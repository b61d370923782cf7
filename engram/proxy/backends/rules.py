"""Health and choice of the servers of one group. Pure: the clock comes in from outside.

    serving --failures in a row >= limit, share not used up--> ejected --its time is over--> probing
    probing --a request succeeds--> serving (slow start)        probing --it fails--> ejected, twice as long
    any     --active check fails--> unhealthy                   unhealthy --active check passes--> serving (slow start)

- A failure is a connection that cannot be made, breaks, hangs or speaks garbage; a backend's own 4xx and 5xx are
  answers.
- A probing server gets one request at a time.
- No more than `max_ejected` of a group (rounded down, but one of two) is ejected; an active check is not so bounded,
  but when all servers are out the choice is among all of them: a request that might fail beats one that must.
- The choice is the least busy server; one in slow start counts as busier than it is.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, final

from engram.proxy.settings.model import BackendSettings

Word = Literal["serving", "slow_start", "ejected", "probing", "unhealthy"]
_LEAST_SHARE: Final = 0.1


@final
class Server:
    """One server: requests in progress, and the recent outcome of others."""

    __slots__ = ("back_at", "ejected_until", "ejections", "failures", "in_flight", "last_error", "unhealthy", "url")

    def __init__(self, url: str) -> None:
        self.url = url
        self.in_flight = 0
        self.failures = 0
        """In a row."""
        self.ejections = 0
        """In a row; each is twice as long as the one before."""
        self.ejected_until = 0.0
        self.back_at = float("-inf")
        """When it came back, for its slow start."""
        self.unhealthy = False
        """Whether the newest active check failed."""
        self.last_error = ""

    def word(self, now: float, slow_start_s: float) -> Word:
        """Return its state in a word."""
        if self.unhealthy:
            return "unhealthy"
        if self.ejections:
            return "ejected" if now < self.ejected_until else "probing"
        return "slow_start" if now - self.back_at < slow_start_s else "serving"


def choose(servers: Sequence[Server], settings: BackendSettings, now: float, tried: Iterable[Server] = ()) -> Server:
    """Return the server for a request, none of `tried` where another one is there."""
    tried = set(tried)
    candidates = [each for each in servers if each not in tried] or list(servers)
    fit = [each for each in candidates if _takes(each, now)]
    return min(fit or candidates, key=lambda each: _busyness(each, settings.slow_start_s, now))


def _takes(server: Server, now: float) -> bool:
    if server.unhealthy or now < server.ejected_until:
        return False
    return not (server.ejections and server.in_flight)


def _busyness(server: Server, slow_start_s: float, now: float) -> tuple[float, float]:
    share = 1.0
    if slow_start_s and now - server.back_at < slow_start_s:
        share = max(_LEAST_SHARE, (now - server.back_at) / slow_start_s)
    return (server.in_flight + 1) / share, server.ejected_until


def succeeded(server: Server, now: float) -> None:
    """Note that a request got an answer."""
    server.failures = 0
    if server.ejections:
        server.ejections, server.ejected_until, server.back_at = 0, 0.0, now


def failed(server: Server, servers: Sequence[Server], settings: BackendSettings, now: float, error: str) -> bool:
    """Note that a request failed for the server's own reasons; return whether it is ejected for that."""
    server.failures += 1
    server.last_error = error
    probing = server.ejections > 0 and now >= server.ejected_until
    if server.ejections and not probing:
        return False
    if not probing and (server.failures < settings.failures or not may_eject(servers, settings.max_ejected, now)):
        return False
    server.ejections += 1
    server.failures = 0
    seconds = min(settings.eject_most_s, settings.eject_s * 2.0 ** min(server.ejections - 1, 30))
    server.ejected_until = now + seconds
    return True


def may_eject(servers: Sequence[Server], share: float, now: float) -> bool:
    """Return whether one more server of the group may be ejected."""
    out = sum(1 for each in servers if each.ejections and now < each.ejected_until)
    return out + 1 <= int(len(servers) * share)


def checked(server: Server, now: float, error: str) -> bool:
    """Note an active check, whose `error` is empty when it passed; return whether the server's state changed."""
    was, server.unhealthy = server.unhealthy, bool(error)
    if error:
        server.last_error = error
    elif was:
        server.back_at, server.ejections, server.ejected_until, server.failures = now, 0, 0.0, 0
    return was != server.unhealthy
