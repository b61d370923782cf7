"""One group of servers: their connections, their health, and the choice among them."""

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import final

import trio

from engram.http import targets
from engram.http.errors import NoPlace, NotSent
from engram.http.forwarding import Forwarding, Upstream
from engram.http.targets import Target
from engram.proxy.backends import rules
from engram.proxy.backends.breaker import Breaker
from engram.proxy.backends.rules import Server
from engram.proxy.settings.model import BackendSettings

Monotonic = Callable[[], float]


@final
class Group:
    """The servers that answer the same requests.

    It outlives a change of settings that leaves it as it is. Otherwise a new one succeeds it, and goes on with what is
    known of servers that stay, with their connections and with the breaker.
    """

    def __init__(
        self,
        name: str,
        settings: BackendSettings,
        monotonic: Monotonic,
        tls: ssl.SSLContext | None,
        former: "Group | None" = None,
    ) -> None:
        """`tls` is the context for https; make it by `tls_of`, off the loop. `former` is unchanged until `succeed`."""
        self.name = name
        self.settings = settings
        known = {} if former is None else {server.url: server for server in former.servers}
        urls = dict.fromkeys(url.rstrip("/") for url in settings.urls)
        self.servers: tuple[Server, ...] = tuple(known[url] if url in known else Server(url) for url in urls)
        self.breaker: Breaker = Breaker() if former is None else former.breaker
        trusts_the_same = former is not None and former.settings.ca_file == settings.ca_file
        self.upstream: Upstream = (
            former.upstream
            if former is not None and trusts_the_same
            else Upstream(settings.connections, settings.keep_alive_s, tls)
        )
        self._tls = tls
        self._targets = {server.url: targets.target(server.url) for server in self.servers}
        self._now = monotonic
        self._retired = {
            url: former.retired(known[url]) if former is not None and url in known else trio.Event() for url in urls
        }

    def retired(self, server: Server) -> trio.Event:
        """Return what is set when the settings no longer name the server here: it ends with its last request."""
        return self._retired[server.url]

    def succeed(self, former: "Group") -> None:
        """Take over from a group whose settings are not in force any more: only what they alone name is retired."""
        if self.upstream is not former.upstream:
            former.upstream.retire()
        served = frozenset(target.origin for target in self._targets.values())
        self.upstream.change(self.settings.connections, self.settings.keep_alive_s, self._tls, served)
        for server in former.servers:
            if server.url not in self._retired:
                former.retired(server).set()
        if not self.settings.health_path:
            for server in self.servers:
                server.unhealthy = False  # no check would ever find it healthy again

    def target(self, server: Server) -> Target:
        """Return where a server is; its path is what requests' paths are put behind."""
        return self._targets[server.url]

    def wait_s(self) -> float:
        """Return 0 when a request may be sent, else the seconds until the breaker lets one try."""
        return self.breaker.wait_s(self._now())

    async def acquire(self, connect_s: float, total_s: float, *, bodyless: bool) -> tuple[Server, Forwarding]:
        """Return the least busy server and a connection to it, to be given back by `release`; a server that cannot be
        reached is followed by the next.

        Raises NotSent when none can be reached, and NoPlace when all that might be are in use up to their bound.
        """
        tried: list[Server] = []
        full: NoPlace | None = None
        while True:
            server = rules.choose(self.servers, self.settings, self._now(), tried)
            server.in_flight += 1
            try:
                target = self.target(server)
                return server, await self.upstream.acquire(target, connect_s, total_s, bodyless=bodyless)
            except BaseException as error:
                server.in_flight -= 1
                match error:
                    case NoPlace():
                        full = error
                    case NotSent():
                        self._note_failure(server, str(error))
                    case _:
                        self.breaker.left()
                        raise
                tried.append(server)
                if len(tried) >= len(self.servers):
                    if full is not None:
                        self.breaker.left()
                        raise full from None
                    self.breaker.failed(self.settings.breaker_failures, self.settings.breaker_open_s, self._now())
                    raise

    def release(self, server: Server, forwarding: Forwarding) -> None:
        """Give a connection back, whatever became of it."""
        server.in_flight -= 1
        self.breaker.left()
        self.upstream.release(forwarding)

    @asynccontextmanager
    async def connected(
        self, connect_s: float, total_s: float, *, bodyless: bool
    ) -> AsyncIterator[tuple[Server, Forwarding]]:
        """Yield what `acquire` returns, and release it afterwards."""
        server, forwarding = await self.acquire(connect_s, total_s, bodyless=bodyless)
        try:
            yield server, forwarding
        finally:
            self.release(server, forwarding)

    def retire(self) -> None:
        """Take no new requests: the settings no longer name this group."""
        for ended in self._retired.values():
            ended.set()
        self.upstream.retire()

    def succeeded(self, server: Server) -> None:
        """Note that a server answered."""
        rules.succeeded(server, self._now())
        self.breaker.succeeded()

    def failed(self, server: Server, error: str) -> None:
        """Note that a server failed a request."""
        self._note_failure(server, error)
        self.breaker.failed(self.settings.breaker_failures, self.settings.breaker_open_s, self._now())

    def _note_failure(self, server: Server, error: str) -> None:
        rules.failed(server, self.servers, self.settings, self._now(), error)

    def checked(self, server: Server, error: str) -> bool:
        """Note an active check; return whether the server's state changed."""
        return rules.checked(server, self._now(), error)

    def words(self) -> Sequence[tuple[str, str, int, str]]:
        """Return URL, state, requests in progress and the last error of each server."""
        now, slow_start_s = self._now(), self.settings.slow_start_s
        return [(each.url, each.word(now, slow_start_s), each.in_flight, each.last_error) for each in self.servers]

    @property
    def breaker_word(self) -> str:
        """The breaker's state in a word."""
        return self.breaker.word(self._now())

    @property
    def in_flight(self) -> int:
        """Requests in progress."""
        return sum(server.in_flight for server in self.servers)


def tls_of(settings: BackendSettings) -> ssl.SSLContext | None:
    """Return the TLS context of a group with https servers. Blocks. Raises OSError for a file that does not load."""
    if not any(url.startswith("https://") for url in settings.urls):
        return None
    return ssl.create_default_context(cafile=settings.ca_file or None)
